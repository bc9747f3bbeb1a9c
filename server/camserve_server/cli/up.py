"""Runs the whole stack in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import typer

from camserve_server.base.config import Settings
from camserve_server.base.logs import configure_logs
from camserve_server.base.open_files import raise_limit
from camserve_server.base.supervisor import tell_supervisor
from camserve_server.cli.ready import ready_state, write_state
from camserve_server.cli.self_check import Checked, sample_image, self_check
from camserve_server.cli.stack import Stack
from camserve_server.cli.tokens import issuer
from camserve_server.core.tokens import SCOPES

_PARENT_INTERVAL_S = 0.5


def up(settings: Settings, *, with_parent: bool = False) -> None:
    """Serves until SIGINT or SIGTERM, or until the parent has ended.

    Raises StackError and its like when the stack cannot start.
    """
    configure_logs(settings.log_level)
    raise_limit()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.ready_file:
        # One that a killed run left behind would say that this one is ready.
        settings.ready_file.unlink(missing_ok=True)
    asyncio.run(_up(settings, os.getppid() if with_parent else None))


async def _up(settings: Settings, parent: int | None) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    orphaned = asyncio.create_task(_stop_without(parent, stopping)) if parent else None
    started = time.monotonic()
    stack = Stack(settings)
    servers = "the server" if settings.replica_count == 1 else f"{settings.replica_count} servers"
    typer.echo(f"starting Valkey, {servers} and Envoy …")
    starting = asyncio.create_task(_start(stack, settings))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            _announce(settings, starting.result(), time.monotonic() - started)
            tell_supervisor("READY=1")
            await stopped
    finally:
        tell_supervisor("STOPPING=1")
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        if settings.ready_file:
            settings.ready_file.unlink(missing_ok=True)
        if orphaned:
            orphaned.cancel()
        with contextlib.suppress(OSError):  # the terminal may have gone with the parent
            typer.echo("stopping …")
        await stack.stop()
        with contextlib.suppress(OSError):
            typer.echo("stopped")


async def _stop_without(parent: int, stopping: asyncio.Event) -> None:
    """Stops the stack once the parent has ended; some systems tell nobody, so it is looked at."""
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_INTERVAL_S)
    stopping.set()


async def _start(stack: Stack, settings: Settings) -> Checked:
    await stack.start()
    token = issuer(settings).issue(tenant="self-check", subject="self-check", scopes=SCOPES, ttl_s=60)
    checked = await asyncio.to_thread(self_check, settings, token)
    if settings.ready_file:
        write_state(settings.ready_file, ready_state(settings))
    return checked


def _announce(settings: Settings, checked: Checked, seconds: float) -> None:
    sample = sample_image(settings)
    elsewhere = settings.data_dir != Path(".camserve").resolve()
    data_dir = f"CAMSERVE_DATA_DIR={settings.data_dir} " if elsewhere else ""
    ports = [settings.replica_ports(number) for number in range(settings.replica_count)]
    grpc_targets = ", ".join(f"{settings.grpc_reach_host}:{each['grpc_port']}" for each in ports)
    metrics_urls = ", ".join(f"http://127.0.0.1:{each['metrics_port']}/metrics" for each in ports)
    program = Path(sys.executable).with_name("camserve")
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    typer.echo(
        f"""
camserve is ready after {seconds:.1f} s.

  playground {settings.edge_url}/
  REST       {settings.edge_url}
  gRPC       {grpc_targets}
  metrics    {metrics_urls}
  data       {settings.data_dir}

  self-check {checked.sample.name}: {checked.label}, {checked.prob:.1%}
  heatmap    {checked.heatmap}

Ask it yourself:

  TOKEN=$({data_dir}{program} token --tenant demo)
  curl -s {settings.edge_url}/v1/infer -H "Authorization: Bearer $TOKEN" \\
    -F image=@{sample} -F model=shapes -F grad_cam.enabled=true
  grpcurl -plaintext -H "authorization: Bearer $TOKEN" {settings.grpc_target} \\
    camserve.v1.ModelService/ListModels

Ctrl-C stops everything.
"""
    )
