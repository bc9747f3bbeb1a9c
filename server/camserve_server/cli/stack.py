"""The whole stack on one machine: Valkey, the replicas and Envoy, each restarted when it falls."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from camserve_server.base.config import Settings
from camserve_server.base.errors import OperatorError
from camserve_server.base.tasks import ended
from camserve_server.cli.envoy import EnvoyProcess
from camserve_server.cli.ready import ready_state, write_state
from camserve_server.cli.replica import ReplicaProcess
from camserve_server.cli.restarts import keep_running
from camserve_server.cli.valkey import EmbeddedValkey
from camserve_server.edge.settings import MIB, Collector, EdgeSettings, ExternalIssuer, ReplicaTls


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
        self._replicas = [ReplicaProcess(settings, number) for number in range(settings.replica_count)]
        self._watches: list[asyncio.Task[None]] = []
        self._lock: int | None = None

    async def start(self) -> None:
        """Returns once every part is healthy; raises StackError, or what a part raises."""
        for folder in (self._run_dir, self._logs_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = locked(self._run_dir / "lock")
        if taken := taken_ports(self._settings):
            raise StackError(f"another program listens on {', '.join(taken)}: choose other ports")
        if self._valkey:
            self._redis_url = await self._valkey.start()
            self._watch("valkey", self._valkey.exited, self._restart_valkey)
        await self._start_replicas()
        await self._envoy.start()
        for replica in self._replicas:
            self._watch(replica.name, replica.exited, partial(replica.start, self._redis_url))
        self._watch("envoy", self._envoy.exited, self._envoy.start)
        self._write_state()

    async def stop(self) -> None:
        """Drains the edge and the replicas, then stops the store."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        # All at once: the replicas refuse new calls, and the edge stays until the running ones are answered.
        await asyncio.gather(self._envoy.stop(), *(replica.stop() for replica in self._replicas))
        if self._valkey:
            await self._valkey.stop()
        if self._lock is not None:
            state_file(self._settings).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def _start_replicas(self) -> None:
        starts = [asyncio.create_task(replica.start(self._redis_url)) for replica in self._replicas]
        try:
            await asyncio.gather(*starts)
        finally:
            await ended(starts)

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
    collector = None
    if settings.otlp_endpoint:
        place = urlsplit(settings.otlp_endpoint)
        collector = Collector(
            place.hostname or "", place.port or 4317, tls=place.scheme == "https", ratio=settings.trace_ratio
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
        collector=collector,
        to_stdout=settings.edge_logs == "stdout",
    )


def taken_ports(settings: Settings) -> list[str]:
    """Returns the addresses of the stack that another program has, each with the setting of its port."""
    wanted = [(settings.host, settings.edge_port, "edge_port")]
    for number in range(settings.replica_count):
        for name, port in settings.replica_ports(number).items():
            wanted.append((getattr(settings, name.replace("port", "host")), port, name))
    return [f"{host}:{port} (CAMSERVE_{name.upper()})" for host, port, name in wanted if _is_taken(host, port)]


def _is_taken(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return False
    except OSError as error:
        return error.errno == errno.EADDRINUSE


def locked(path: Path) -> int:
    """Returns the descriptor that holds the lock until it is closed or the process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StackError(f"another camserve uses this data directory: {path} is locked") from None
    return descriptor
