"""What a gRPC server tells of itself to anybody: its health and, by reflection, its services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import _async as health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as reflection
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from camserve_server.base.tasks import either, ended

LIVE, READY = "live", "ready"
# Of health and of reflection: whoever opens a stream need not say who he is.
_MOST_STREAMS = 256
_SILENT_S = 60.0


class Health(health.HealthServicer):  # type: ignore[misc]  # its package has no types
    """Answers for every service alike: a replica serves all of its services or none.

    Two names are no services: `ready` is as the empty one, `live` serves until the process ends.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.stopping = asyncio.Event()
        self._leaving = asyncio.Event()
        self._names = ["", LIVE, READY, *names]
        self._watching = 0
        for name in self._names:
            self._server_status[name] = health_pb2.HealthCheckResponse.SERVING

    async def enter_graceful_shutdown(self) -> None:
        """Ends everything but life: a replica that drains must not be killed for it."""
        self._gracefully_shutting_down = True
        for name in self._names:
            if name != LIVE:
                await self._set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._leaving.set()

    def end_streams(self) -> None:
        """Ends the streams of health and of reflection, right before the server stops.

        While the server takes calls, who watches would begin again at once.
        """
        self.stopping.set()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Writes how a service is, and again when the server is about to stop, as nothing else changes it.

        The class of grpcio has no bound, and its streams hold up the end of the server.
        """
        if self._watching >= _MOST_STREAMS:
            # Of all refusals the one on which gRPC's clients go without this check, instead of without the server.
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Too many watch already.")
        self._watching += 1
        try:
            before = self._status(request.service)
            await context.write(before)
            await self._leaving.wait()
            if (now := self._status(request.service)) != before:
                await context.write(now)
            await self.stopping.wait()
        finally:
            self._watching -= 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The server stops.")

    async def List(self, request: health_pb2.HealthListRequest, context: object) -> health_pb2.HealthListResponse:  # noqa: N802
        """Returns the state of every service, which the class of grpcio leaves out."""
        return health_pb2.HealthListResponse(statuses={name: self._status(name) for name in self._names})

    def _status(self, name: str) -> health_pb2.HealthCheckResponse:
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        return health_pb2.HealthCheckResponse(status=self._server_status.get(name, unknown))


class Reflection(reflection.ReflectionServicer):  # type: ignore[misc]  # its package has no types
    """Describes the services, for so many callers at once.

    A stream whose answers are read ends after 60 s without a question, and with the server.
    """

    def __init__(self, names: list[str], stopping: asyncio.Event) -> None:
        super().__init__(names)
        self._stopping = stopping
        self._open = 0

    async def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: AsyncIterator[reflection_pb2.ServerReflectionRequest], context: Any
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Yields an answer for each question."""
        if self._open >= _MOST_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many ask already.")
        self._open += 1
        try:
            async for response in super().ServerReflectionInfo(self._asked(request_iterator), context):
                yield response
        finally:
            self._open -= 1

    async def _asked(
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest]
    ) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        messages = aiter(requests)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while True:
                following = asyncio.ensure_future(anext(messages, None))
                try:
                    await either(following, stopping, _SILENT_S)
                    request = following.result() if following.done() else None
                finally:
                    await ended([following])
                if request is None:
                    return
                yield request
        finally:
            await ended([stopping])


def add_introspection(server: grpc.aio.Server, names: list[str]) -> Health:
    """Lets a server tell of its services, and returns what it says of its health."""
    servicer = Health(names)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    health_name, name = (
        pb2.DESCRIPTOR.services_by_name[service].full_name
        for pb2, service in ((health_pb2, "Health"), (reflection_pb2, "ServerReflection"))
    )
    described = Reflection([*names, health_name, name], servicer.stopping)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(described, server)
    return servicer
