"""Runs checks against a deployment, and removes what they made."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import httpx

from camserve_conformance.check import REST, Check
from camserve_conformance.checks import SECTIONS
from camserve_conformance.kit import MADE, Kit, Made, Shared
from camserve_conformance.native import Native
from camserve_conformance.options import NEEDS, Options
from camserve_conformance.outcomes import BlockedError, Outcome, SkippedError, State, ViolationError
from camserve_conformance.pace import Pace
from camserve_conformance.receiver import Receiver
from camserve_conformance.rest import Rest

# The kit takes this share of what its tenant may do.
_SHARE = 0.5
_UNTOLD_RATE = 10.0
_REMOVED = (200, 204, 404, 409)
_SCOPES = frozenset(f"{what}.{way}" for what in ("inference", "jobs", "webhooks") for way in ("read", "write"))


class CannotRunError(Exception):
    """Nothing can be checked: there is no deployment, or it does not know the token."""


@dataclass(frozen=True)
class Report:
    """What a run found; `left` names what could not be removed."""

    options: Options
    outcomes: Sequence[Outcome]
    left: Sequence[str]
    took_s: float

    def count(self, state: State) -> int:
        """Counts the checks that ended so."""
        return sum(outcome.state is state for outcome in self.outcomes)

    @property
    def exit_code(self) -> int:
        """0 when the deployment conforms, 1 when it does not, 2 when too little was run to say."""
        if self.count(State.VIOLATED):
            return 1
        return 2 if self.count(State.BLOCKED) or not self.count(State.PASSED) else 0


def selected(options: Options) -> list[Check]:
    """Returns the checks that `only` and `excepted` leave; both name sections or checks, with `*` for any text."""
    checks = [check for section in SECTIONS for check in section.checks]
    chosen = [check for check in checks if not options.only or _is_named(check, options.only)]
    return [check for check in chosen if not _is_named(check, options.excepted)]


def _is_named(check: Check, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(check.name, each) or check.section.name == each for each in patterns)


async def run(options: Options, progress: Callable[[Outcome, int], None] | None = None) -> Report:
    """Runs the checks that the options select; `progress` is told each outcome and how many checks there are.

    Raises CannotRunError when the deployment does not answer, over REST or gRPC, or refuses the token, and OSError when
    `receive` cannot be listened at.
    """
    began = time.monotonic()
    checks = selected(options)
    if not checks:
        raise CannotRunError("no check has such a name")
    pace = Pace(options.concurrency)
    async with AsyncExitStack() as stack:
        try:
            rest = Rest(options, pace)
        except httpx.InvalidURL as error:
            raise CannotRunError(f"{options.url} is no address: {error}") from error
        stack.push_async_callback(rest.close)
        native = Native(options, pace) if options.grpc else None
        if native:
            stack.push_async_callback(native.close)
        receiver = None
        if options.receive:
            receiver = Receiver((options.receive_url or f"http://{options.receive}").rstrip("/"))
            await receiver.start(options.receive)
            stack.push_async_callback(receiver.close)
        await _prepare(rest, native, pace, options)
        shared = Shared(options, rest, native, receiver)
        outcomes: list[Outcome] = []

        def note(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if progress:
                progress(outcome, len(checks))

        left = await _all(checks, shared, note)
    order = {check.name: place for place, check in enumerate(checks)}
    outcomes.sort(key=lambda outcome: order[outcome.check.name])
    return Report(options, outcomes, left, time.monotonic() - began)


async def _prepare(rest: Rest, native: Native | None, pace: Pace, options: Options) -> None:
    at_once = options.concurrency
    if lacking := _SCOPES - _scopes(options.token):
        # Every refusal for want of a scope would be told as a fault of the deployment.
        raise CannotRunError(f"the token lacks the scopes {', '.join(sorted(lacking))}")
    try:
        answer = await rest.request("GET", "/v1/limits")
        if native:
            await native.call("GetHealth", token=None)
    except BlockedError as error:
        raise CannotRunError(str(error)) from error
    if answer.status == 401:
        raise CannotRunError(f"the deployment refuses the token: {answer.code}")
    try:
        limits = answer.need()
        pace.set_limits(
            per_second=max(1.0, _SHARE * limits["requests_per_second"]["limit"]),
            at_once=max(1, min(at_once, int(_SHARE * limits["concurrency"]["limit"]))),
        )
    except (BlockedError, KeyError, TypeError, ValueError):
        # The limits are told wrongly, which a check says; so the kit goes slowly.
        pace.set_limits(per_second=_UNTOLD_RATE, at_once=at_once)


def _scopes(token: str) -> frozenset[str]:
    """Returns the scopes that a token says it has, and all of them for one that cannot be read."""
    try:
        claims = token.split(".")[1]
        said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        scopes = said["scope"] if "scope" in said else said["scp"]
        return frozenset(scopes.split() if isinstance(scopes, str) else scopes)
    except (LookupError, TypeError, ValueError):
        return _SCOPES


async def _all(checks: list[Check], shared: Shared, note: Callable[[Outcome], None]) -> list[str]:
    ends = time.monotonic() + shared.options.within_s
    left: list[str] = []
    places = asyncio.Semaphore(shared.options.concurrency)

    async def one(check: Check) -> None:
        async with places:
            made: Made = []
            MADE.set(made)
            note(await _outcome(check, shared, ends))
            left.extend(await _remove(shared, made))

    together = [check for check in checks if not check.alone]
    await asyncio.gather(*(asyncio.create_task(one(check)) for check in together))
    for check in checks:
        if check.alone:
            await asyncio.create_task(one(check))
    for task in shared.remembered.values():
        task.cancel()
    await asyncio.gather(*shared.remembered.values(), return_exceptions=True)
    left.extend(await _remove(shared, shared.made))
    return left


async def _outcome(check: Check, shared: Shared, ends: float) -> Outcome:
    began = time.monotonic()

    def ended(state: State, why: str = "", answer: Any = None) -> Outcome:
        return Outcome(check, state, time.monotonic() - began, why, answer)

    if lacking := [NEEDS[need] for need in check.needs if not shared.options.has(need)]:
        return ended(State.SKIPPED, f"needs {'; '.join(lacking)}")
    limit_s = min(shared.options.check_timeout_s, ends - began)
    if limit_s <= 0:
        return ended(State.BLOCKED, f"the {shared.options.within_s:g} s of the run were over")
    try:
        async with asyncio.timeout(limit_s):
            await check.run(Kit(shared, check.way))
    except ViolationError as error:
        return ended(State.VIOLATED, error.problem, error.answer)
    except SkippedError as error:
        return ended(State.SKIPPED, str(error))
    except BlockedError as error:
        return ended(State.BLOCKED, str(error))
    except TimeoutError:
        return ended(State.BLOCKED, f"it had not ended after {limit_s:.0f} s")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # An answer on the way to the sentence had another shape than the contract's, which another check is about.
        return ended(State.BLOCKED, f"an answer could not be read: {type(error).__name__} {error}")
    return ended(State.PASSED)


async def _remove(shared: Shared, made: Made) -> list[str]:
    left: list[str] = []
    for operation, named in reversed(made):
        try:
            answer = await Kit(shared, REST).call(operation, named)
            removed = answer.status in _REMOVED
        except BlockedError:
            removed = False
        if not removed:
            left.extend(named.values())
    made.clear()
    return left
