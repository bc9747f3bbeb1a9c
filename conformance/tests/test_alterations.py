"""The kit can fail: one thing altered in front of the real edge makes the check of that sentence fail, and no other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from conformance.tests import (
    alterations_of_calls,
    alterations_of_errors,
    alterations_of_events,
    alterations_of_jobs,
    alterations_of_messages,
    alterations_of_tenants,
)
from conformance.tests.altering import Alteration
from conformance.tests.conftest import Deployment
from conformance.tests.proxy import Alter, Exchange, faulty_proxy

from camserve_conformance.checks import SECTIONS
from camserve_conformance.options import Options
from camserve_conformance.outcomes import State
from camserve_conformance.report import as_text
from camserve_conformance.runner import Report, run

pytestmark = pytest.mark.timeout(600)

ALTERATIONS = [
    *alterations_of_calls.ALTERATIONS,
    *alterations_of_tenants.ALTERATIONS,
    *alterations_of_messages.ALTERATIONS,
    *alterations_of_jobs.ALTERATIONS,
    *alterations_of_events.ALTERATIONS,
    *alterations_of_errors.ALTERATIONS,
]
# So many at once, in runs of every check.
GROUPS = 6
REASONS = {
    "auth.claims": "it judges the token that the kit was given, which passes through no proxy",
    "headers.deprecation": "it does not apply to a version without an end",
}


def _with_ids_back(exchange: Exchange) -> None:
    """Takes ids back to their form: an alteration gives them another one."""
    exchange.target = re.sub(r"\b(job|img|obj|webhook)-(?=\w{16})", r"\1_", exchange.target)
    exchange.asked_body = re.sub(rb"\b(job|img|obj|webhook)-(?=\w{16})", rb"\1_", exchange.asked_body)


@asynccontextmanager
async def _altered(deployment: Deployment, options: Options, alterations: list[Alteration]) -> AsyncIterator[Options]:
    answers = [each.make() for each in alterations if each.of == "answers"]
    requests = [_with_ids_back, *(each.make() for each in alterations if each.of == "requests")]
    events = [each.make() for each in alterations if each.of == "events"]

    def all_of(alters: list[Alter]) -> Alter:
        def alter(exchange: Exchange) -> None:
            for each in alters:
                each(exchange)

        return alter

    receiver = f"http://{options.receive}"
    async with (
        faulty_proxy(deployment.proxy_port, deployment.stack.edge_url) as edge,
        faulty_proxy(deployment.events_port, receiver) as courier,
    ):
        edge.alter, edge.before = all_of(answers), all_of(requests)
        courier.before = all_of(events)
        # A job is told of soon, where at all: what an alteration keeps away is not waited for.
        yield replace(options, check_timeout_s=20)


def _violated(report: Report) -> set[str]:
    return {each.check.name for each in report.outcomes if each.state is State.VIOLATED}


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda each: each.what)
async def test_an_alteration_makes_its_check_fail(
    alteration: Alteration, deployment: Deployment, proxied: Options
) -> None:
    async with _altered(deployment, proxied, [alteration]) as options:
        report = await run(replace(options, only=tuple(alteration.hits)))
    assert _violated(report) == alteration.hits, as_text(report)


@pytest.mark.parametrize("group", range(GROUPS))
async def test_alterations_make_no_other_check_fail(group: int, deployment: Deployment, proxied: Options) -> None:
    alterations = ALTERATIONS[group::GROUPS]
    async with _altered(deployment, proxied, alterations) as options:
        report = await run(options)
    others = _violated(report) - frozenset().union(*(each.hits for each in alterations))
    assert not others, as_text(
        replace(report, outcomes=[each for each in report.outcomes if each.check.name in others])
    )


def test_every_check_is_hit_by_an_alteration_or_has_a_reason() -> None:
    hit = frozenset().union(*(each.hits for each in ALTERATIONS))
    over_rest = {check.name for section in SECTIONS for check in section.checks if not check.name.endswith("@grpc")}
    assert over_rest - hit == set(REASONS)
    assert hit <= over_rest
