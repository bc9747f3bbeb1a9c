"""What the edge is told by the settings of the deployment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_DEFAULT_WORKERS_LIMIT = 4


def duration(seconds: float) -> str:
    """Returns a length of time as Envoy reads it."""
    return f"{seconds:.3f}s"


@dataclass(frozen=True, slots=True)
class ExternalIssuer:
    """An issuer of tokens besides the built-in one; its public keys lie in a file, or come from an address.

    `ca_file` holds the authorities for an https address, by default those of the system.
    """

    issuer: str
    audience: str
    jwks_file: Path | None = None
    jwks_url: str | None = None
    ca_file: Path | None = None
    cache_s: int = 60


@dataclass(frozen=True, slots=True)
class ReplicaTls:
    """How the edge speaks TLS to the replicas; with certificate and key, mutual TLS."""

    ca_file: Path
    server_name: str
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go over OTLP, and the share (0 to 1) of the traces that begin here which are recorded."""

    host: str
    port: int
    tls: bool
    ratio: float


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Everything that the rendered configuration depends on besides the protos.

    `run_dir` holds the unix sockets (admin, keys), so its path must stay short.
    `log_dir` receives `access.log` and Envoy's own log.
    """

    run_dir: Path
    log_dir: Path
    issuer: str
    audience: str
    listen_host: str = "127.0.0.1"
    listen_port: int = 8080
    replicas: tuple[tuple[str, int], ...] = (("127.0.0.1", 50051),)
    replica_tls: ReplicaTls | None = None
    limiters: tuple[tuple[str, int], ...] = ()  # internal listeners of replicas; without one the edge limits no rate
    limiter_tls: ReplicaTls | None = None
    external_issuer: ExternalIssuer | None = None
    tenant_claim: str = "tenant"
    max_token_lifetime_s: int = 86_400
    clock_skew_s: int = 10
    max_json_bytes: int = 20 * MIB
    max_upload_bytes: int = 101 * MIB  # 100 MB and what multipart frames it with
    max_response_bytes: int = 8 * MIB
    max_header_kb: int = 32  # the replicas take 64 KiB, and transcoding adds headers
    max_headers: int = 100
    max_connections: int = 4096
    max_requests: int = 16_384  # open at all replicas together; far more than one tenant's, or strangers', may be
    worker_heap_bytes: int = 512 * MIB  # for each worker thread
    sync_timeout_s: float = 15.0
    sync_image_bytes: int = 20_000_000  # what is larger becomes a job, and is not refused for want of room
    timeout_grace_s: float = 1.0  # the replica answers first, with its own words
    default_timeout_s: float = 10.0
    stream_idle_timeout_s: float = 60.0
    drain_time_s: int = 30
    cors_origins: tuple[str, ...] = ()
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    reflection: bool = False  # lets grpc.health.v1 and server reflection through, with a token
    collector: Collector | None = None  # where traces go
    to_stdout: bool = False  # both logs go to standard output, as containers want it
    concurrency: int | None = None  # worker threads; default one per core, up to four

    @property
    def workers(self) -> int:
        """How many worker threads the edge has."""
        return self.concurrency or min(os.cpu_count() or 1, _DEFAULT_WORKERS_LIMIT)

    @property
    def max_heap_bytes(self) -> int:
        """How much memory the edge may have before it refuses all that comes."""
        return self.workers * self.worker_heap_bytes

    @property
    def admin_socket(self) -> Path:
        """Where the admin interface listens."""
        return self.run_dir / "admin.sock"

    @property
    def keys_socket(self) -> Path:
        """Where the edge serves the built-in issuer's keys to itself."""
        return self.run_dir / "keys.sock"

    @property
    def sockets(self) -> tuple[Path, ...]:
        """Every unix socket."""
        return self.admin_socket, self.keys_socket

    @property
    def access_log(self) -> Path:
        """Where one JSON line per request goes."""
        return Path("/dev/stdout") if self.to_stdout else self.log_dir / "access.log"

    @property
    def envoy_log(self) -> Path:
        """Where Envoy's own log goes."""
        return self.log_dir / "envoy.log"
