"""Runs one replica in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import uvloop

from camserve_server.base.config import Settings, wait_asleep
from camserve_server.base.logs import configure_logs
from camserve_server.base.open_files import raise_limit
from camserve_server.base.supervisor import tell_supervisor
from camserve_server.base.tasks import ended
from camserve_server.base.tracing import start_tracing
from camserve_server.cli.ready import ready_state, write_state
from camserve_server.engine.footprint import limit_arenas


def serve(settings: Settings, redis_url: str) -> None:
    """Serves until SIGINT or SIGTERM, then drains; raises OSError when a port is taken."""
    configure_logs(settings.log_level)
    # A crash inside a library says where each thread was.
    faulthandler.enable()
    raise_limit()
    limit_arenas()
    wait_asleep()
    end_tracing = None
    if settings.otlp_endpoint:
        instance = f"{socket.gethostname()}:{settings.grpc_port}"
        end_tracing = start_tracing(settings.otlp_endpoint, ratio=settings.trace_ratio, instance=instance)
    try:
        uvloop.run(_serve(settings, redis_url))
    finally:
        if end_tracing:
            end_tracing()


async def _serve(settings: Settings, redis_url: str) -> None:
    # Imported late: commands that serve nothing must not wait for torch.
    from camserve_server.main import Replica

    # What imports made stays, as long as the process does: looking through it for garbage held up every call once.
    gc.freeze()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    replica = Replica(settings, redis_url)
    try:
        if not await came_to_its_end(replica.start(), stopping):
            return
        if settings.ready_file:
            write_state(settings.ready_file, ready_state(settings))
        tell_supervisor("READY=1")
        await stopping.wait()
    finally:
        tell_supervisor("STOPPING=1")
        await replica.stop()


async def came_to_its_end(start: Coroutine[Any, Any, None], stopping: asyncio.Event) -> bool:
    """Runs the start; returns False when it was broken off because the program is to stop."""
    starting, told = asyncio.create_task(start), asyncio.create_task(stopping.wait())
    await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if starting.done():
        await starting
        return True
    await ended([starting])
    return False
