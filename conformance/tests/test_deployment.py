"""The kit against the real stack: it conforms, over REST and over gRPC."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest
from conformance.tests.conftest import Deployment
from conformance.tests.proxy import faulty_proxy

from camserve_conformance.options import Options
from camserve_conformance.outcomes import State
from camserve_conformance.report import as_text
from camserve_conformance.runner import Report, run

pytestmark = pytest.mark.timeout(600)


# The model of the stack has no end.
_DO_NOT_APPLY = {"headers.deprecation"}


def _expect_conformance(report: Report) -> None:
    wrong = [each.check.name for each in report.outcomes if each.state is not State.PASSED]
    assert not set(wrong) - _DO_NOT_APPLY, as_text(report)
    assert not report.left


async def test_the_stack_conforms_over_rest_and_grpc(deployment: Deployment) -> None:
    async with faulty_proxy(deployment.proxy_port, deployment.stack.edge_url):
        report = await run(deployment.options)
    _expect_conformance(report)
    assert report.exit_code == 0


async def test_the_stack_conforms_over_grpc_through_the_edge(deployment: Deployment) -> None:
    edge = deployment.stack.edge_url.removeprefix("http://")
    options = replace(deployment.options, grpc=edge, grpc_edge=True, only=("*@grpc",))
    async with faulty_proxy(deployment.proxy_port, deployment.stack.edge_url):
        report = await run(options)
    wrong = [each for each in report.outcomes if each.state not in (State.PASSED, State.SKIPPED)]
    assert not wrong, as_text(report)


async def test_nothing_is_left_behind(options: Options, deployment: Deployment) -> None:
    token = deployment.stack.token(tenant="tidy")
    sections = ("webhooks", "uploads", "jobs", "surface")
    async with faulty_proxy(deployment.proxy_port, deployment.stack.edge_url):
        report = await run(replace(options, token=token, grpc="", only=sections))
    assert not report.left
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=options.url, headers=headers) as api:
        assert (await api.get("/v1/webhooks")).json()["webhooks"] == []
        jobs = (await api.get("/v1/jobs", params={"limit": 200})).json()["jobs"]
    assert jobs
    assert not [job for job in jobs if job["status"] in ("queued", "running")]


async def test_a_tenant_with_little_is_not_driven_over_its_limits(options: Options, deployment: Deployment) -> None:
    stack = deployment.stack
    assert not stack.camserve("tenants", "set", "modest", "--rps", "20", "--burst", "20").returncode
    modest = replace(
        options, token=stack.token(tenant="modest"), grpc="", only=("infer", "errors"), excepted=("*@grpc",)
    )
    report = await run(modest)
    _expect_conformance(report)
