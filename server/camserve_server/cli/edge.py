"""Runs Envoy alone, in front of replicas that run elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal

import typer

from camserve_server.base.config import Settings
from camserve_server.base.logs import configure_logs
from camserve_server.base.supervisor import tell_supervisor
from camserve_server.cli.envoy import EnvoyProcess
from camserve_server.cli.ready import write_state
from camserve_server.cli.restarts import keep_running
from camserve_server.cli.stack import edge_settings


def edge(settings: Settings) -> None:
    """Serves until SIGINT or SIGTERM, then drains; raises EnvoyError when Envoy cannot start."""
    configure_logs(settings.log_level)
    if settings.ready_file:
        settings.ready_file.unlink(missing_ok=True)
    asyncio.run(_edge(settings))


async def _edge(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    # By its port, so that several edges and a stack may share the directory.
    name = f"edge-{settings.edge_port}"
    run_dir = settings.data_dir / "run" / name
    envoy = EnvoyProcess(edge_settings(settings, run_dir, settings.data_dir / "logs" / name), run_dir / "envoy")
    serving = asyncio.create_task(_serve(envoy, settings))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        serving.cancel()
        stopped.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        if settings.ready_file:
            settings.ready_file.unlink(missing_ok=True)
        tell_supervisor("STOPPING=1")
        if stopping.is_set() and envoy.pid:
            # What is in front sends callers on for as long as it has not noticed.
            await asyncio.sleep(settings.lame_duck_s)
        await envoy.stop()


async def _serve(envoy: EnvoyProcess, settings: Settings) -> None:
    await envoy.start()
    typer.echo(f"{settings.edge_url} leads to {', '.join(f'{host}:{port}' for host, port in settings.edge_replicas)}")
    if settings.ready_file:
        state = {"edge_url": settings.edge_url, "pid": os.getpid(), "data_dir": str(settings.data_dir)}
        write_state(settings.ready_file, state)
    tell_supervisor("READY=1")
    await keep_running("envoy", envoy.exited, envoy.start)
