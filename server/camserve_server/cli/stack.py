"""The whole stack on one machine: Valkey, one replica and Envoy, each restarted when it falls."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from camserve_server.base.child import Child, start_child
from camserve_server.base.config import PREFIX, Settings
from camserve_server.base.errors import OperatorError
from camserve_server.cli.envoy import EnvoyProcess
from camserve_server.cli.logs import lines_since, open_log
from camserve_server.cli.ready import ready_state, write_state
from camserve_server.cli.restarts import keep_running
from camserve_server.cli.valkey import EmbeddedValkey
from camserve_server.edge.settings import MIB, EdgeSettings, ExternalIssuer, ReplicaTls

_HEALTHY_WITHIN_S = 120.0


class StackError(OperatorError):
    """The stack cannot run; the message says why and what helps."""


class Stack:
    """Starts, watches and stops the processes; state that others need lies in `<data_dir>/run/stack.json`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._run_dir = settings.data_dir / "run"
        self._logs_dir = settings.data_dir / "logs"
        self._valkey = None if settings.redis_url else EmbeddedValkey(settings.data_dir)
        self._redis_url = settings.redis_url.get_secret_value() if settings.redis_url else ""
        self._envoy = EnvoyProcess(edge_settings(settings, self._run_dir, self._logs_dir), self._run_dir / "envoy")
        self._replica: Child | None = None
        self._watches: list[asyncio.Task[None]] = []
        self._lock: int | None = None

    async def start(self) -> None:
        """Returns once every part is healthy; raises StackError, or what a part raises."""
        for folder in (self._run_dir, self._logs_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = locked(self._run_dir / "lock")
        if self._valkey:
            self._redis_url = await self._valkey.start()
            self._watch("valkey", self._valkey.exited, self._restart_valkey)
        await self._start_replica()
        await self._envoy.start()
        self._watch("replica", self._replica_exited, self._start_replica)
        self._watch("envoy", self._envoy.exited, self._envoy.start)
        self._write_state()

    async def stop(self) -> None:
        """Drains the edge and the replica, then stops the store."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        # Both at once: the replica refuses new calls, and the edge stays until the running ones are answered.
        await asyncio.gather(self._envoy.stop(), *([self._replica.stop()] if self._replica else []))
        if self._valkey:
            await self._valkey.stop()
        if self._lock is not None:
            state_file(self._settings).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def _start_replica(self) -> None:
        settings = self._settings
        # Its own word, not a look at the port: another server may be listening there.
        ready_file = self._run_dir / "replica.json"
        ready_file.unlink(missing_ok=True)
        own = {f"{PREFIX}REDIS_URL": self._redis_url, f"{PREFIX}READY_FILE": str(ready_file)}
        if not settings.replicas:
            # The edge has nowhere else to send calls, and stops at the same time.
            own[f"{PREFIX}LAME_DUCK_S"] = "0"
        log = self._logs_dir / "server.log"
        output, seen_bytes = open_log(log)
        try:
            self._replica = await start_child(
                [sys.executable, "-m", "camserve_server.cli.app", "serve"],
                grace_s=settings.lame_duck_s + settings.drain_s + 5,
                output=output,
                environment=settings.environment() | own,
            )
        finally:
            os.close(output)
        healthy = asyncio.create_task(_exists(ready_file))
        ended = asyncio.create_task(self._replica.wait())
        try:
            await asyncio.wait([healthy, ended], timeout=_HEALTHY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if healthy.done() and not healthy.cancelled():
                return
            if not ended.done():
                await self._replica.stop()
                raise StackError(f"the server was not healthy within {_HEALTHY_WITHIN_S:g} s; see {log}")
        finally:
            for task in (healthy, ended):
                task.cancel()
        last = next(reversed(lines_since(log, seen_bytes)), "it wrote no message")
        raise StackError(f"the server ended while it started: {last}; see {log}")

    async def _replica_exited(self) -> int:
        if self._replica is None:
            raise RuntimeError("the replica has not been started")
        return await self._replica.wait()

    async def _restart_valkey(self) -> None:
        if self._valkey:
            await self._valkey.start()

    def _watch(self, name: str, exited: Callable[[], Awaitable[int]], restart: Callable[[], Awaitable[object]]) -> None:
        self._watches.append(asyncio.create_task(keep_running(name, exited, restart)))

    def _write_state(self) -> None:
        write_state(state_file(self._settings), {**ready_state(self._settings), "redis_url": self._redis_url})


def state_file(settings: Settings) -> Path:
    """Returns where a running stack says how it is reached."""
    return settings.data_dir / "run" / "stack.json"


def edge_settings(settings: Settings, run_dir: Path, logs_dir: Path) -> EdgeSettings:
    """Returns the edge's part of the settings."""
    external = None
    if settings.jwt_external_issuer:
        external = ExternalIssuer(
            settings.jwt_external_issuer,
            settings.jwt_audience,
            jwks_file=settings.jwt_jwks_file,
            jwks_url=settings.jwt_jwks_url,
            ca_file=settings.jwt_jwks_ca,
            cache_s=settings.jwt_jwks_cache_s,
        )
    replica_tls = limiter_tls = None
    if settings.grpc_roots:
        replica_tls = ReplicaTls(ca_file=settings.grpc_roots, server_name=settings.edge_replicas[0][0])
        if settings.edge_limiters and settings.edge_limiters_tls:
            limiter_tls = ReplicaTls(ca_file=settings.grpc_roots, server_name=settings.edge_limiters[0][0])
    return EdgeSettings(
        run_dir=run_dir,
        log_dir=logs_dir,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        listen_host=settings.host,
        listen_port=settings.edge_port,
        replicas=settings.edge_replicas,
        replica_tls=replica_tls,
        limiters=settings.edge_limiters,
        limiter_tls=limiter_tls,
        external_issuer=external,
        tenant_claim=settings.jwt_tenant_claim,
        max_json_bytes=settings.max_json_bytes,
        max_upload_bytes=settings.max_image_bytes + MIB,
        sync_timeout_s=settings.sync_timeout_s,
        sync_image_bytes=settings.sync_image_bytes,
        drain_time_s=int(settings.drain_s) + 2,
        cors_origins=settings.cors_origins,
        tls_cert_file=settings.tls_cert,
        tls_key_file=settings.tls_key,
        reflection=settings.edge_reflection,
        to_stdout=settings.edge_logs == "stdout",
    )


async def _exists(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.02)


def locked(path: Path) -> int:
    """Returns the descriptor that holds the lock until it is closed or the process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StackError(f"another camserve uses this data directory: {path} is locked") from None
    return descriptor
