"""Streams of health and of reflection, which anybody may open: they are bounded, and no server waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from camserve_server.rpc import introspection
from camserve_server.rpc.introspection import Health, add_introspection

LISTING = reflection_pb2.ServerReflectionRequest(list_services="")


class Served:
    """A server that has nothing but what it tells of itself, and a channel to it."""

    def __init__(self, server: grpc.aio.Server, health: Health, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.health = health
        self._watch = health_pb2_grpc.HealthStub(channel).Watch
        self._reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo

    async def watch(self, name=""):
        """A stream whose first answer has come, or that has been refused."""
        stream = self._watch(health_pb2.HealthCheckRequest(service=name))
        with suppress(grpc.aio.AioRpcError):
            await stream.read()
        return stream

    async def reflect(self):
        """The same."""
        stream = self._reflect()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await stream.write(LISTING)
            await stream.read()
        return stream


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    server = grpc.aio.server()
    health = add_introspection(server, ["some.Service"])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(server, health, channel)
    await server.stop(None)


async def test_a_watch_hears_that_the_server_stops_and_the_server_does_not_wait_for_streams(served):
    watch, life, reflected = await served.watch("some.Service"), await served.watch("live"), await served.reflect()
    await served.health.enter_graceful_shutdown()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await asyncio.sleep(0.2)
    assert not any(stream.done() for stream in (watch, life, reflected))
    served.health.end_streams()
    assert await life.code() == await watch.code() == grpc.StatusCode.UNAVAILABLE
    assert await reflected.read() is grpc.aio.EOF
    async with asyncio.timeout(5):
        await served.server.stop(60)


async def test_who_watches_what_is_not_there_hears_so(served):
    stream = served._watch(health_pb2.HealthCheckRequest(service="none"))
    assert (await stream.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.mark.parametrize("kind", ["watch", "reflect"])
async def test_one_stream_too_many_is_refused_until_another_ends(served, kind):
    begin = getattr(served, kind)
    streams = await asyncio.gather(*(begin() for _ in range(introspection._MOST_STREAMS)))
    assert not any(stream.done() for stream in streams)
    code = grpc.StatusCode.UNIMPLEMENTED if kind == "watch" else grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await (await begin()).code() == code
    streams[0].cancel()
    async with asyncio.timeout(5):
        while (await begin()).done():
            await asyncio.sleep(0.01)


async def test_a_reflection_ends_in_silence(served, monkeypatch):
    monkeypatch.setattr(introspection, "_SILENT_S", 0.2)
    stream = await served.reflect()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() == grpc.StatusCode.OK
