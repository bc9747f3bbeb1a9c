"""What asking for the state of the service costs, and how soon it says that the state store is away and is back."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import httpx
from tests.faults.valkey import Valkey, valkey

from benchmarks import picture
from benchmarks.job import Job
from benchmarks.open_loop import Callers, quantile
from benchmarks.report import Verdict, number, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import SHAPES, Service

_ASK = b"GET /v1/health HTTP/1.1\r\nHost: camserve\r\n\r\n"
_CALLERS_BESIDE = 4
_LOOKS_EACH_S = 0.02
_GIVE_UP_S = 20.0


@dataclass(frozen=True, slots=True)
class _Cost:
    beside: str
    asked: int
    failed: int
    p50_ms: float
    p99_ms: float
    calls_p50_ms: float


@dataclass(frozen=True, slots=True)
class _Outage:
    """Seconds until an answer says so, from the fault's end until one says no more, and of the longest answer."""

    fault: str
    degraded_s: float
    serving_s: float
    longest_s: float
    failed: int


def measure(place: Place, plan: Plan) -> Findings:
    """Health by Envoy, without a token, of a stack whose Valkey is somewhere else."""
    place.progress("health: starting")
    with valkey(place.folder / "health-valkey") as store:
        settings = {"CAMSERVE_REDIS_URL": store.url}
        with Service(place.folder / "health", place.models_dir, settings) as service:
            costs = asyncio.run(_costs(place, plan, service))
            outages = asyncio.run(_outages(place, plan, service, store))
    print(
        table(
            "GET /v1/health, one caller who asks again and again, by Envoy",
            ("beside", "asked", "p50 ms", "p99 ms", "those calls' p50 ms"),
            [
                (
                    cost.beside,
                    str(cost.asked),
                    *(number(ms) for ms in (cost.p50_ms, cost.p99_ms, cost.calls_p50_ms)),
                )
                for cost in costs
            ],
        )
    )
    print(
        table(
            "How soon health says that Valkey is away and is back",
            ("Valkey", "degraded after s", "serving after s", "longest answer s"),
            [
                (one.fault, *(number(seconds) for seconds in (one.degraded_s, one.serving_s, one.longest_s)))
                for one in outages
            ],
        )
    )
    failed = sum(cost.failed for cost in costs) + sum(outage.failed for outage in outages)
    verdicts = [
        Verdict(f"health beside {costs[-1].beside}, p99", costs[-1].p99_ms, 50, " ms"),
        *(Verdict(f"Valkey {one.fault}: shown as degraded after", one.degraded_s, 5, " s") for one in outages),
        *(Verdict(f"Valkey {one.fault}: shown as serving after", one.serving_s, 5, " s") for one in outages),
        Verdict("answers of health that were not 200", failed, 0),
    ]
    figures = {"cost": [asdict(cost) for cost in costs], "outages": [asdict(outage) for outage in outages]}
    return Findings(figures, verdicts)


async def _costs(place: Place, plan: Plan, service: Service) -> list[_Cost]:
    asking = Callers(service.edge_port, _ASK, seed=plan.seed)
    job = Job(picture.photo(512, 384), "image/jpeg", SHAPES, cam=True)
    calling = Callers(service.edge_port, job.as_request(service.token), seed=plan.seed)
    costs = []
    for beside in (0, _CALLERS_BESIDE):
        place.progress(f"health: asked beside {beside} callers")
        await calling.in_turn(1, callers=beside)
        seconds = plan.seconds(4, 1)
        asked, calls = await asyncio.gather(asking.in_turn(seconds), calling.in_turn(seconds, callers=beside))
        costs.append(
            _Cost(
                beside=f"{beside} callers with images",
                asked=asked.offered,
                failed=asked.offered - len(asked.answered),
                p50_ms=1000 * quantile(asked.answered, 0.5),
                p99_ms=1000 * quantile(asked.answered, 0.99),
                calls_p50_ms=1000 * quantile(calls.answered, 0.5),
            )
        )
    asking.close()
    calling.close()
    return costs


async def _outages(place: Place, plan: Plan, service: Service, store: Valkey) -> list[_Outage]:
    """Each fault once, at a moment of the second between two questions that the seed decides."""
    rng = random.Random(plan.seed)
    faults: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "killed": (store.kill, store.start),
        "paused": (partial(store.signal, signal.SIGSTOP), partial(store.signal, signal.SIGCONT)),
    }
    outages = []
    url = f"http://127.0.0.1:{service.edge_port}"
    async with httpx.AsyncClient(base_url=url, timeout=_GIVE_UP_S, trust_env=False) as client:
        for fault, (begin, end) in faults.items():
            place.progress(f"health: Valkey {fault}")
            looker = _Looker(client)
            await looker.until("serving")
            await asyncio.sleep(rng.random())
            await asyncio.to_thread(begin)
            degraded_s = await looker.until("degraded")
            await asyncio.to_thread(end)
            serving_s = await looker.until("serving")
            outages.append(_Outage(fault, degraded_s, serving_s, looker.longest_s, looker.failed))
    return outages


class _Looker:
    """Asks again and again; keeps how long the longest answer took, in seconds, and how many were not 200."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.longest_s = 0.0
        self.failed = 0

    async def until(self, status: str) -> float:
        """Returns the seconds until health says so, infinity where it does not."""
        started = time.monotonic()
        while (asked := time.monotonic()) - started < _GIVE_UP_S:
            answer = await self._client.get("/v1/health")
            told = time.monotonic()
            self.longest_s = max(self.longest_s, told - asked)
            self.failed += answer.status_code != 200
            if answer.json().get("status") == status:
                return told - started
            await asyncio.sleep(_LOOKS_EACH_S)
        return math.inf
