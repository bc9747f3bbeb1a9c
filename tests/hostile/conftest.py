"""A stack of its own, so that what is done to it disturbs no other test, and those who use it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import grpc
import httpx
import psutil
import pytest
from benchmarks.processes import by_role
from google.api import httpbody_pb2
from tests.conftest import Stack, start_stack, stop_stack
from tests.images import star_png

from camserve.v1 import inference_pb2, inference_pb2_grpc

T = TypeVar("T")
EDGE, DIRECT = "edge", "direct"
# Far more than a call takes, also on a machine that others use.
ANSWERED_WITHIN_S = 20.0


@dataclass(frozen=True)
class Target:
    """A port under attack, and a token that is good there."""

    name: str
    port: int
    token: str

    @property
    def is_edge(self) -> bool:
        return self.name == EDGE


@pytest.fixture(scope="package")
def hostile_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = start_stack(tmp_path_factory.mktemp("hostile"), upload_idle_s=3)
    yield running
    stop_stack(running)


@pytest.fixture(params=[EDGE, DIRECT])
def target(hostile_stack: Stack, request: pytest.FixtureRequest) -> Target:
    return target_of(hostile_stack, request.param)


def target_of(stack: Stack, name: str, tenant: str = "hostile") -> Target:
    address = stack.edge_url if name == EDGE else stack.grpc_target
    return Target(name, int(address.rpartition(":")[2]), stack.token(tenant=tenant))


async def answered(stack: Stack) -> None:
    """Fails unless callers who mean no harm are answered, over REST and on the gRPC port."""
    image = star_png()
    headers = stack.headers(tenant="healthy") | {"content-type": "image/png"}
    async with httpx.AsyncClient(base_url=stack.edge_url, timeout=ANSWERED_WITHIN_S, trust_env=False) as client:
        answer = await client.post("/v1/infer?model=shapes", content=image, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["classes"][0]["id"] == "star"
    metadata = (("authorization", headers["Authorization"]),)
    first = inference_pb2.InferUploadRequest(
        model="shapes", size_bytes=len(image), body=httpbody_pb2.HttpBody(content_type="image/png", data=image)
    )
    # A connection of its own: others with the same options would share one.
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(stack.grpc_target, options=options) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        native = await stub.InferUpload(iter([first]), metadata=metadata, timeout=ANSWERED_WITHIN_S)
    assert native.classes[0].id == "star"


Beside = Callable[[Awaitable[T]], Awaitable[T]]


@pytest.fixture
async def beside(hostile_stack: Stack) -> Beside[object]:
    """Lets an attack run, during and after which healthy calls must be answered; returns what the attack returns."""

    async def run(attack: Awaitable[object]) -> object:
        running = asyncio.ensure_future(attack)
        while not running.done():
            await answered(hostile_stack)
        await answered(hostile_stack)
        return await running

    return run


@dataclass
class Memory:
    """The processes that callers reach, and what they had when this was made."""

    replica: psutil.Process
    edge: psutil.Process
    start_mb: float

    @classmethod
    def of(cls, stack: Stack) -> Memory:
        roles = by_role(stack.process.pid)
        memory = cls(psutil.Process(roles["replica"][0]), psutil.Process(roles["Envoy"][0]), 0.0)
        memory.start_mb = memory.now_mb
        return memory

    @property
    def now_mb(self) -> float:
        return sum(process.memory_info().rss for process in (self.replica, self.edge)) / 1e6

    @property
    def grown_mb(self) -> float:
        """Also fails where one of them has been replaced since."""
        return self.now_mb - self.start_mb


@pytest.fixture
async def memory(hostile_stack: Stack) -> Memory:
    await answered(hostile_stack)
    return Memory.of(hostile_stack)
