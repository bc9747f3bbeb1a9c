"""Callers of a model whose routes change, who look which version answered and whether the answer is that version's."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
from tests.faults.pair import Pair, Process
from tests.images import star_png

from camserve.v1 import admin_pb2_grpc
from camserve.v1 import model_routes_pb2 as pb
from camserve_server.base.config import load
from camserve_server.cli.tokens import issuer

ONE, BATCH = "infer", "infer:batch"
# Further apart than the same version on other threads, much closer than two versions.
_SAME = 1e-4
_INPUTS = 4
_IMAGE = {"bytes": base64.b64encode(star_png()).decode()}


@dataclass(frozen=True)
class Heard:
    """One call: whose it was, when it began, the versions that its answer names, and what is wrong with it."""

    tenant: str
    began: float
    versions: frozenset[str]
    status: int = 200
    mixed: bool = False


@dataclass
class ModelCallers:
    """Callers at one address. `probabilities` are each version's for the picture, class by class."""

    url: str
    tokens: Mapping[str, str]
    model: str = "shapes"
    timeout_s: float = 60.0
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)

    async def learn(self, versions: Sequence[str]) -> None:
        """Asks each version by its name for what it answers."""
        async with self._client(next(iter(self.tokens))) as client:
            for version in versions:
                answer = await client.post("/v1/infer", json=self._body() | {"model_version": version})
                answer.raise_for_status()
                self.probabilities[version] = _probabilities(answer.json())
        assert not any(
            _close(one, other)
            for version, one in self.probabilities.items()
            for name, other in self.probabilities.items()
            if version != name
        )

    @asynccontextmanager
    async def calling(self, kinds: Sequence[str]) -> AsyncIterator[None]:
        """Lets a caller for each kind call for each tenant as long as this is entered."""
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for tenant in self.tokens:
                for kind in kinds:
                    group.create_task(self._call(tenant, kind, stopping))
            try:
                yield
            finally:
                stopping.set()

    async def until(self, count: int, *, since: float = 0.0) -> None:
        """Returns once so many calls that began since then were heard of."""
        while sum(one.began > since for one in self.heard) < count:
            await asyncio.sleep(0.02)

    async def until_only(self, version: str, tenant: str, *, calls: int) -> None:
        """Returns once the tenant's last calls were all answered by that version."""
        while True:
            last = [one.versions for one in self.heard if one.tenant == tenant][-calls:]
            if len(last) == calls and set(last) == {frozenset({version})}:
                return
            await asyncio.sleep(0.02)

    async def _call(self, tenant: str, kind: str, stopping: asyncio.Event) -> None:
        async with self._client(tenant) as client:
            while not stopping.is_set():
                began = time.monotonic()
                heard = await (self._one(client) if kind == ONE else self._batch(client))
                self.heard.append(Heard(tenant, began, *heard))

    async def _one(self, client: httpx.AsyncClient) -> tuple[frozenset[str], int, bool]:
        answer = await client.post("/v1/infer", json=self._body())
        if answer.status_code != 200:
            return frozenset(), answer.status_code, False
        document = answer.json()
        version = document["model_version"]
        return frozenset({version}), 200, not self._genuine(version, document)

    async def _batch(self, client: httpx.AsyncClient) -> tuple[frozenset[str], int, bool]:
        inputs = [{"id": str(n), "image": _IMAGE, "classify": {"top_k": 10}} for n in range(_INPUTS)]
        answer = await client.post("/v1/infer:batch", json={"model": self.model, "inputs": inputs})
        if answer.status_code != 200:
            return frozenset(), answer.status_code, False
        events = [json.loads(line) for line in answer.text.splitlines() if line]
        results = [
            event["item"]["result"] for event in events if event["event"] == "item" and "result" in event["item"]
        ]
        versions = frozenset(result["model_version"] for result in results)
        whole = len(results) == _INPUTS and events[-1]["event"] == "done"
        genuine = all(self._genuine(result["model_version"], result) for result in results)
        return versions, 200 if whole else 500, len(versions) > 1 or not genuine

    def _genuine(self, version: str, document: dict[str, Any]) -> bool:
        return _close(self.probabilities[version], _probabilities(document))

    def _client(self, tenant: str) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.tokens[tenant]}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=self.timeout_s, trust_env=False)

    def _body(self) -> dict[str, Any]:
        return {"model": self.model, "image": _IMAGE, "classify": {"top_k": 10}}


async def change_routes(running: Pair, replica: Process, **change: Any) -> pb.ChangeModelRoutesResponse:
    """Makes one change by a replica's AdminService."""
    settings = load(data_dir=running.data_dir)
    token = issuer(settings).issue(tenant="operator", subject="tests", scopes=("admin",), ttl_s=60)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{replica.environment['CAMSERVE_INTERNAL_PORT']}") as channel:
        answer: pb.ChangeModelRoutesResponse = await admin_pb2_grpc.AdminServiceStub(channel).ChangeModelRoutes(
            pb.ChangeModelRoutesRequest(**{"model": "shapes"} | change),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=20,
        )
    return answer


async def seen_everywhere(running: Pair, revision: int, model: str = "shapes") -> None:
    """Returns once every replica says that it knows this revision."""
    for replica in running.replicas:
        while await metric(replica, "camserve_model_routes_revision", model=model) != revision:
            await asyncio.sleep(0.02)


async def metric(replica: Process, name: str, **labels: str) -> float:
    """Returns a metric of a replica, summed over the labels that are not given."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{replica.environment['CAMSERVE_METRICS_PORT']}/metrics")).text
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(part in line for part in wanted))


def _probabilities(document: dict[str, Any]) -> dict[str, float]:
    return {score["id"]: score["prob"] for score in document["classes"]}


def _close(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) < _SAME for name in one)
