"""One tenant's rate on every way into two replicas: how exact it is, and how soon a change of it is in force."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass

import grpc
import httpx
from tests.faults.pair import Pair, pair

from benchmarks.report import Verdict, number, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import SHAPES, write_models
from camserve.v1 import admin_pb2, admin_pb2_grpc, models_pb2, models_pb2_grpc

_TENANT = "flood"
_RATE = _BURST = 20
_CALLERS_PER_WAY = 3
_PAUSE_S = 0.03
_CALLS_PER_WAY = 30
_LOOKS_EACH_S = 0.02
_GIVE_UP_S = 10.0
# Until the bucket is full, and somewhat longer.
_FULL_AFTER_S = _BURST / _RATE + 0.5


@dataclass(frozen=True, slots=True)
class _Told:
    """What one answer says of the rate, in requests."""

    passed: bool
    limit: int
    remaining: int


@dataclass(frozen=True, slots=True)
class _Flood:
    seconds: float
    calls: int
    passed: dict[str, int]
    allowed: int

    @property
    def beyond(self) -> int:
        return sum(self.passed.values()) - self.allowed


_Way = Callable[[], Awaitable[_Told]]
_Set = Callable[[int, int], Awaitable[None]]


def measure(place: Place, plan: Plan) -> Findings:
    """Two replicas behind one edge, whose tenant calls by the edge and past it."""
    models_dir = write_models(place.folder / "limits-models", place.shapes, [SHAPES])
    place.progress("limits: starting two replicas")
    with pair(place.folder / "limits", models_dir=models_dir) as both:
        in_force_s, twice, flood = asyncio.run(_figures(place, plan, both))
    print(
        table(
            f"A tenant with {_RATE} requests a second and a burst of {_BURST}, flooding every way in at once",
            ("for s", "calls", *(f"passed, {way}" for way in flood.passed), "passed", "allowed"),
            [
                (
                    number(flood.seconds),
                    str(flood.calls),
                    *(str(count) for count in flood.passed.values()),
                    str(sum(flood.passed.values())),
                    str(flood.allowed),
                )
            ],
        )
    )
    verdicts = [
        Verdict("calls that passed, more or fewer than allowed", abs(flood.beyond), 1),
        *(Verdict(f"calls counted twice, {way}", count, 0) for way, count in twice.items()),
        Verdict(f"a change is in force everywhere, longest of {len(in_force_s)}", max(in_force_s), 2, " s"),
    ]
    return Findings({"in_force_s": in_force_s, "twice": twice, "flood": asdict(flood)}, verdicts)


async def _figures(place: Place, plan: Plan, both: Pair) -> tuple[list[float], dict[str, int], _Flood]:
    rng = random.Random(plan.seed)
    async with AsyncExitStack() as stack:
        ways = await stack.enter_async_context(_ways(both))
        set_limits = await stack.enter_async_context(_administration(both))
        place.progress("limits: changes")
        # Rates at which whoever looks whether they are in force is never refused.
        in_force_s = [
            await _in_force(ways, set_limits, 1000 + change, rng.random()) for change in range(1 if plan.quick else 6)
        ]
        place.progress("limits: calls are counted")
        await _in_force(ways, set_limits, 1000, 0.0, rate=1)
        twice = {name: await _twice(way) for name, way in ways.items()}
        place.progress("limits: a flood")
        await _in_force(ways, set_limits, _BURST, 0.0, rate=_RATE)
        await asyncio.sleep(_FULL_AFTER_S)
        flood = await _flood(ways, rng, plan.seconds(10, 3))
    return in_force_s, twice, flood


async def _in_force(
    ways: Mapping[str, _Way], set_limits: _Set, burst: int, after_s: float, *, rate: int = 1000
) -> float:
    """Changes the limits while everybody looks, and returns the seconds until every way in tells the new burst."""

    async def told(way: _Way) -> float:
        # What a replica knew before is as fresh as it can be when the change comes.
        while (await way()).limit != burst:
            if time.monotonic() > ends:
                return math.inf
            await asyncio.sleep(_LOOKS_EACH_S)
        return time.monotonic()

    ends = time.monotonic() + _GIVE_UP_S
    looking = [asyncio.create_task(told(way)) for way in ways.values()]
    await asyncio.sleep(after_s)
    changed = time.monotonic()
    await set_limits(rate, burst)
    return max(await asyncio.gather(*looking)) - changed


async def _twice(way: _Way) -> int:
    """Returns how many calls too many were counted; what comes back meanwhile, one a second, may hide as many."""
    first = await way()
    for _ in range(_CALLS_PER_WAY):
        last = await way()
    return max(0, first.remaining - last.remaining - _CALLS_PER_WAY)


async def _flood(ways: Mapping[str, _Way], rng: random.Random, seconds: float) -> _Flood:
    started = ended = time.monotonic()
    answers: dict[str, list[bool]] = {name: [] for name in ways}

    async def caller(name: str) -> None:
        nonlocal ended
        while time.monotonic() < started + seconds:
            answers[name].append((await ways[name]()).passed)
            ended = time.monotonic()
            await asyncio.sleep(rng.uniform(0, 2 * _PAUSE_S))

    await asyncio.gather(*(caller(name) for name in ways for _ in range(_CALLERS_PER_WAY)))
    return _Flood(
        seconds=ended - started,
        calls=sum(len(each) for each in answers.values()),
        passed={name: sum(each) for name, each in answers.items()},
        allowed=math.floor(_BURST + _RATE * (ended - started)),
    )


@asynccontextmanager
async def _ways(both: Pair) -> AsyncIterator[dict[str, _Way]]:
    """Yields the ways in by name; each lists the models once."""
    bearer = f"Bearer {both.token(_TENANT)}"
    async with (
        httpx.AsyncClient(base_url=both.edge_url, headers={"authorization": bearer}, trust_env=False) as client,
        grpc.aio.insecure_channel(_target(both, 0, "GRPC")) as first,
        grpc.aio.insecure_channel(_target(both, 1, "GRPC")) as second,
    ):

        async def rest() -> _Told:
            answer = await client.get("/v1/models")
            return _told(answer.status_code == 200, answer.headers)

        def native(channel: grpc.aio.Channel) -> _Way:
            list_models = models_pb2_grpc.ModelServiceStub(channel).ListModels

            async def way() -> _Told:
                call = list_models(models_pb2.ListModelsRequest(), metadata=(("authorization", bearer),))
                passed = await call.code() is grpc.StatusCode.OK
                return _told(passed, dict(await (call.initial_metadata() if passed else call.trailing_metadata())))

            return way

        yield {"edge": rest, "first gRPC port": native(first), "second gRPC port": native(second)}


@asynccontextmanager
async def _administration(both: Pair) -> AsyncIterator[_Set]:
    """Yields what sets the tenant's requests a second and burst, by the internal listener of the first replica."""
    metadata = (("authorization", f"Bearer {both.token('operator', ('admin',))}"),)
    async with grpc.aio.insecure_channel(_target(both, 0, "INTERNAL")) as channel:
        set_tenant = admin_pb2_grpc.AdminServiceStub(channel).SetTenant

        async def set_limits(rate: int, burst: int) -> None:
            limits = admin_pb2.LimitValues(requests_per_second=rate, burst=burst)
            await set_tenant(admin_pb2.SetTenantRequest(tenant=_TENANT, limits=limits), metadata=metadata)

        yield set_limits


def _target(both: Pair, replica: int, port: str) -> str:
    return f"127.0.0.1:{both.replicas[replica].environment[f'CAMSERVE_{port}_PORT']}"


def _told(passed: bool, headers: Mapping[str, str]) -> _Told:
    return _Told(passed, int(headers["x-ratelimit-limit"]), int(headers["x-ratelimit-remaining"]))
