"""The settings: defaults, then a TOML file, then the environment, then flags."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from socket import gethostname
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import to_jsonable_python
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from camserve_server.base import bundle
from camserve_server.base.dates import Dates
from camserve_server.base.errors import OperatorError
from camserve_server.base.setting_checks import LOOPBACK, check_together
from camserve_server.base.setting_types import (
    BUCKET,
    ROLES,
    AbsolutePath,
    CollectorAddress,
    Device,
    KeysAddress,
    Listeners,
    Names,
    ObjectsAddress,
    Places,
    Port,
    Roles,
    WebAddress,
)

PREFIX = "CAMSERVE_"

# From one replica of a machine to the next: the first one's ports are neighbours already.
_PORT_STEP = 10


class ConfigError(OperatorError):
    """A setting has a value that is not allowed; the message names it, the value and what is allowed."""


class Settings(BaseSettings):
    """Every setting of camserve. The environment variable is `CAMSERVE_` and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: AbsolutePath = Field(
        Path(".camserve"), description="Keys, state, objects and logs; nothing else is written."
    )
    ready_file: AbsolutePath | None = Field(None, description="Receives a JSON line once everything is healthy.")
    models_dir: AbsolutePath = Field(bundle.MODELS, description="Models that ship with the program.")

    host: str = Field("127.0.0.1", description="Address of the REST edge.")
    grpc_host: str = Field("127.0.0.1", description="Address of the gRPC port; not loopback needs a certificate.")
    internal_host: str = Field(
        "127.0.0.1", description="Address of the internal port; not loopback needs the gRPC port's certificate."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the metrics and of what supervisors ask.")
    edge_port: Port = Field(8080, description="REST and gRPC through Envoy.")
    grpc_port: Port = Field(50051, description="gRPC, direct.")
    internal_port: Port = Field(50052, description="Internal gRPC: the edge's rate limits, administration.")
    metrics_port: Port = Field(9464, description="Prometheus metrics at `/metrics`; `/ready` and `/live`.")
    public_url: WebAddress | None = Field(None, description="Prefix of every link handed out; default: the edge.")
    tls_cert: AbsolutePath | None = Field(None, description="Certificate chain of the edge (PEM).")
    tls_key: AbsolutePath | None = Field(None, description="Private key of the edge (PEM).")
    grpc_tls_cert: Path | None = Field(None, description="Certificate chain of the gRPC port (PEM).")
    grpc_tls_key: Path | None = Field(None, description="Private key of the gRPC port (PEM).")
    grpc_tls_ca: AbsolutePath | None = Field(
        None,
        description="Authorities (PEM) by which the edge and commands know the replicas; default: their certificate.",
    )
    cors_origins: Names = Field((), description="Origins that browsers may call from.")
    edge_reflection: bool = Field(False, description="Offer reflection and grpc.health through the edge too.")
    replica_count: int = Field(
        1,
        ge=1,
        le=64,
        description="Replicas that `camserve up` runs behind its edge; from one to the next each port but the edge's "
        "is 10 higher. They share the threads, imaging workers and memory for images that are defaults below.",
    )
    replicas: Listeners = Field(
        (), description="gRPC ports of the replicas behind the edge, as `host:port`; default: those here."
    )
    limiters: Listeners = Field(
        (),
        description="Internal ports that the edge asks about rates, as `host:port`; default: those here, "
        "with replicas named: none, so that each replica counts what it gets.",
    )

    redis_url: SecretStr | None = Field(
        None,
        description="A Redis-protocol server instead of the embedded one, a cluster "
        "(`redis://a:6379,b:6379?cluster=true`), or the server that sentinels know (`redis://a:26379,b:26379?sentinel=NAME`).",
    )
    objects_url: ObjectsAddress | None = Field(
        None, description="`file:PATH` or `s3://BUCKET/PREFIX` instead of the data directory's objects."
    )
    s3_endpoint: WebAddress | None = Field(None, description="Address of a server that speaks S3; default: Amazon's.")
    s3_region: str = Field("us-east-1", description="Region of the bucket.")
    s3_access_key_id: str | None = Field(
        None, description="Access key for the bucket; default: what the machine offers (AWS_*, web identity, instance)."
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="Its secret.")
    s3_session_token: SecretStr | None = Field(None, description="Its token, if it ends by itself.")
    s3_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        None, description="Encryption that every object asks for; default: the bucket's own."
    )
    s3_kms_key_id: str | None = Field(None, description="Key of the key management service for it.")
    s3_public_url: WebAddress | None = Field(
        None, description="Address at which callers reach the S3 server: links lead there instead of through the edge."
    )

    jwt_issuer: str = Field("https://camserve.local", description="`iss` of the tokens issued here.")
    jwt_audience: str = Field("camserve", description="`aud` of tokens.")
    jwt_tenant_claim: str = Field("tenant", description="Claim that names the tenant.")
    jwt_external_issuer: str | None = Field(None, description="`iss` of another issuer whose tokens count too.")
    jwt_jwks_file: AbsolutePath | None = Field(None, description="Public keys (JWKS) of that issuer.")
    jwt_jwks_url: KeysAddress | None = Field(
        None, description="Where that issuer publishes them instead: https, or http on this machine."
    )
    jwt_jwks_ca: AbsolutePath | None = Field(
        None, description="Authorities (PEM) for that address; default: the system's."
    )
    jwt_jwks_cache_s: int = Field(60, ge=1, le=3600, description="How long keys from there count before a new fetch.")

    device: Device = Field("auto", description="Where models run: `auto`, `cpu`, `cuda` or `cuda:N`.")
    torch_threads: Annotated[int, Field(ge=1, le=512)] | None = Field(
        None, description="CPU threads with which each model version runs; default: as many as there are cores."
    )
    max_batch: int = Field(
        8,
        ge=1,
        le=1024,
        description="Most images of one forward pass: where they take over 0.2 s it is fewer, not below 4.",
    )
    batch_delay_ms: float = Field(0.0, ge=0, le=1000, description="Wait for more images while the device is idle.")
    queue_wait_s: float = Field(
        0.5, gt=0, le=600, description="Wait that calls of one model version may build up; more of them are refused."
    )
    queue_limit: int = Field(256, ge=1, le=100_000, description="Calls of one model version under way, however fast.")
    pass_deadline_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Time after which a forward pass counts as hanging: longer than any sane one.",
    )
    model_load_wait_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Time that a start, and versions behind it, wait for a model version to load: longer than any sane "
        "load. One that takes longer loads on while the others serve.",
    )

    models_memory_mb: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Memory that loaded model versions may take, in MiB; beyond it those that no alias leads to are "
        "loaded on demand. Default: no limit.",
    )

    engine: Literal["local", "ray"] = Field(
        "local", description="Where models run: in this process, or as actors on a Ray cluster (extra `ray`)."
    )
    ray_address: Annotated[str, Field(pattern=r"^(auto|[A-Za-z0-9.-]+:[0-9]{1,5})$")] | None = Field(
        None,
        description="A Ray cluster that this machine belongs to, as `host:port` or `auto`; default: one started here.",
    )
    ray_cpus_per_model: float = Field(
        1.0,
        ge=0,
        le=1024,
        description="CPUs that one actor takes of its node, and its threads without `torch_threads`.",
    )
    ray_gpus_per_model: float = Field(0.0, ge=0, le=64, description="GPUs that one actor takes; a fraction shares one.")
    ray_min_actors: int = Field(1, ge=1, le=1024, description="Actors that each model version has at least.")
    ray_max_actors: int = Field(
        1, ge=1, le=1024, description="And at most: more are started while pictures wait, and end when idle for long."
    )

    imaging_workers: int = Field(2, ge=1, le=256, description="Processes that decode and draw.")
    imaging_memory_mb: int = Field(2048, ge=256, description="Memory that one of them may take, in MiB.")
    imaging_deadline_s: float = Field(10.0, gt=0, le=600, description="Time that one image may take in them.")
    imaging_queue_limit: int = Field(256, ge=1, description="Images that wait for one of them.")
    upload_memory_mb: int = Field(
        1024,
        ge=128,
        description="Memory that images in flight may take, in MiB; a tenant's at most twice what they leave free.",
    )

    max_image_bytes: int = Field(
        100_000_000,
        ge=1024,
        le=2**40,
        description="Bytes of one encoded image, no more than `upload_memory_mb`; above 2 GiB only as a stream.",
    )
    max_json_bytes: int = Field(20_000_000, ge=1024, le=2**31 - 1, description="Bytes of one JSON body at the edge.")
    upload_idle_s: float = Field(60.0, gt=0, le=3600, description="Pause within an upload after which it is given up.")
    max_side_px: int = Field(16384, ge=16, le=65535, description="Longest side of an image.")
    max_pixels: int = Field(268_435_456, ge=256, description="Pixels of an image.")
    sync_timeout_s: float = Field(15.0, gt=0, le=600, description="Time budget of a call that waits for its answer.")
    sync_image_bytes: int = Field(20_000_000, ge=0, description="Bytes above which an image becomes a job.")
    sync_pixels: int = Field(75_000_000, ge=0, description="Pixels above which an image becomes a job.")
    tenant_rps: int = Field(
        5_000, ge=1, le=1_000_000, description="Requests per second of a tenant without limits of its own."
    )
    tenant_burst: int = Field(10_000, ge=1, le=10_000_000, description="Requests that it may send at once.")
    tenant_images_per_day: int = Field(
        10_000_000, ge=0, le=2_147_483_647, description="Images that it may send on one day (UTC)."
    )
    tenant_concurrency: int = Field(256, ge=0, le=100_000, description="Calls of it that may run at once.")
    tenant_open_calls: int = Field(
        1024, ge=1, le=1_000_000, description="Calls of it that may be open at one replica, watching and half-sent too."
    )
    tenant_max_batch: int = Field(256, ge=1, le=256, description="Inputs of one batch or job of it.")
    fetch_allow: Places = Field(
        (), description="Private places, as `127.0.0.1/32:8080`, that image URLs and webhooks may name, with http too."
    )
    fetch_timeout_s: float = Field(10.0, gt=0, le=600, description="Time that fetching an image from its URL may take.")
    webhook_allow: Places = Field((), description="The same for webhooks only.")
    webhook_retry_s: float = Field(
        15.0, gt=0, le=600, description="Pause before an event is sent again; each later pause is four times as long."
    )
    clamd: Annotated[str, Field(pattern=r"^(unix:/.+|tcp:[^\s]+:[0-9]{1,5})$")] | None = Field(
        None, description="ClamAV's daemon that sees every image first: `unix:/path` or `tcp:host:port`."
    )
    clamd_timeout_s: float = Field(10.0, gt=0, le=600, description="Time that it may take for one image.")
    clamd_fail_open: bool = Field(False, description="Let images pass while it gives no verdict.")
    url_ttl_s: int = Field(900, ge=1, le=604_800, description="How long a link to a heatmap works.")
    heatmap_retention_hours: float = Field(72, gt=0, le=8760, description="How long a stored heatmap is kept.")
    upload_retention_hours: float = Field(72, gt=0, le=8760, description="How long an uploaded image is kept.")
    tenant_retention_hours: dict[str, Annotated[float, Field(gt=0, le=8760)]] = Field(
        {}, description='Both times for tenants that have one of their own, as JSON: `{"acme": 24}`.'
    )
    deprecated_methods: dict[str, Dates] = Field(
        {},
        description="Methods of the API that end, as JSON: "
        '`{"InferenceService.InferBatch": {"deprecated_at": "2027-01-01", "sunset_at": …, "link": …}}`.',
    )
    janitor_interval_s: float = Field(300, gt=0, description="Pause between removals of what expired.")

    roles: Roles = Field(ROLES, description="What this replica does.")
    job_concurrency: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="Items of jobs under way at once; default: enough to keep the engine busy."
    )
    job_lease_s: float = Field(15.0, ge=1, le=600, description="Silence after which a worker's items are taken over.")

    lame_duck_s: float = Field(
        2.5,
        ge=0,
        le=60,
        description="How long a stopping server still takes calls while what is in front of it learns that it stops.",
    )
    drain_s: float = Field(20.0, ge=0, le=600, description="How long it then finishes running calls.")
    audit_dir: AbsolutePath | None = Field(
        None, description="Folder of the audit log, a file for each replica; default: the data directory's logs."
    )
    otlp_endpoint: CollectorAddress | None = Field(
        None, description="Collector that traces go to over OTLP (gRPC), as `http://127.0.0.1:4317`; default: none."
    )
    trace_ratio: float = Field(
        0.1, ge=0, le=1, description="Share of calls whose trace is recorded where their caller has not decided."
    )
    edge_logs: Literal["files", "stdout"] = Field(
        "files", description="Where the edge writes: files in the data directory, or standard output."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        check_together(self)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Orders the sources: flags over environment over file over defaults."""
        file = Path(os.environ.get(f"{PREFIX}CONFIG", "camserve.toml"))
        if not file.is_file():
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    @property
    def audit_file(self) -> Path:
        """The audit log of this replica, which has its host's internal port to itself: folders may be shared."""
        return (self.audit_dir or self.data_dir / "logs") / f"audit-{gethostname()}-{self.internal_port}.jsonl"

    @property
    def edge_url(self) -> str:
        """The edge's own address, as programs on this machine reach it."""
        return f"{'https' if self.tls_cert else 'http'}://{_reachable(self.host)}:{self.edge_port}"

    @property
    def grpc_reach_host(self) -> str:
        """The host under which programs on this machine reach the gRPC port."""
        return _reachable(self.grpc_host)

    @property
    def grpc_target(self) -> str:
        """The gRPC port, as programs on this machine reach it."""
        return f"{self.grpc_reach_host}:{self.grpc_port}"

    def replica_ports(self, number: int) -> dict[str, int]:
        """The ports of a replica here, the first of which is number 0, by the names of their settings."""
        first = {"grpc_port": self.grpc_port, "internal_port": self.internal_port, "metrics_port": self.metrics_port}
        return {name: port + number * _PORT_STEP for name, port in first.items()}

    @property
    def internal_target(self) -> str:
        """The internal port, as programs on this machine reach it."""
        return f"{_reachable(self.internal_host)}:{self.internal_port}"

    @property
    def internal_tls(self) -> bool:
        """Whether the internal port speaks TLS."""
        return self.internal_host not in LOOPBACK

    @property
    def grpc_roots(self) -> Path | None:
        """What vouches for the certificate of the replicas, None where they have none."""
        return self.grpc_tls_ca or self.grpc_tls_cert

    @property
    def edge_replicas(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each replica behind the edge."""
        return _addresses(self.replicas) or self._here("grpc_port", self.grpc_reach_host)

    @property
    def edge_limiters(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each internal listener that the edge asks about rates."""
        here = () if self.replicas else self._here("internal_port", _reachable(self.internal_host))
        return _addresses(self.limiters) or here

    @property
    def edge_limiters_tls(self) -> bool:
        """Whether those listeners speak TLS: where they are named, all that are not on loopback do."""
        named = _addresses(self.limiters)
        return any(host not in LOOPBACK for host, _ in named) if named else self.internal_tls

    @property
    def link_prefix(self) -> str:
        """What every link begins with, without a slash at the end."""
        return (self.public_url or self.edge_url).rstrip("/")

    @property
    def s3_place(self) -> tuple[str, str] | None:
        """The bucket and the prefix that hold the objects, None where a folder does."""
        match = BUCKET.fullmatch(self.objects_url or "")
        return (match["bucket"], match["prefix"] or "") if match else None

    @property
    def objects_dir(self) -> Path:
        """Where the local object store keeps its files."""
        return Path(self.objects_url.removeprefix("file:")) if self.objects_url else self.data_dir / "objects"

    def environment(self) -> dict[str, str]:
        """Returns the environment in which a child process loads these same settings."""
        own = {
            PREFIX + name.upper(): _text(value)
            for name in type(self).model_fields
            if (value := self._plain(name)) is not None
        }
        return {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)} | own

    def _here(self, port: str, host: str) -> tuple[tuple[str, int], ...]:
        return tuple((host, self.replica_ports(number)[port]) for number in range(self.replica_count))

    def _plain(self, name: str) -> Any:
        value = getattr(self, name)
        return value.get_secret_value() if isinstance(value, SecretStr) else value


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return json.dumps(to_jsonable_python(value))
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _addresses(listeners: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    parts = (listener.rpartition(":") for listener in listeners)
    return tuple((host.strip("[]"), int(port)) for host, _, port in parts)


def _reachable(host: str) -> str:
    """Returns a name for an address to bind; every address of the machine includes `localhost`."""
    return "localhost" if host in ("0.0.0.0", "::") else host


def prepare_ray(*, own: bool) -> None:
    """Prepares for Ray, before it is imported: `own` for one that this process starts.

    Such a Ray listens on every address of the machine, and whoever reaches it may run programs: so it asks for a token
    that only it and its children know. Its workers would give way to every other program. And where a call finds no
    connection Ray would start another cluster.
    """
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if own:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        os.environ.update(RAY_worker_niceness="0", RAY_USAGE_STATS_ENABLED="0")


def wait_asleep() -> None:
    """Lets threads sleep as they wait for the others of an operation; else they spin, on the core that those need.

    A replica shares its cores with decoders, the edge and callers, so that one of the threads is always late. What the
    environment says of it stays. Call it before torch is imported: its OpenMP looks once.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def supervisor_socket() -> str | None:
    """Returns where systemd wants to be told that the program is ready, None where nobody does."""
    return os.environ.get("NOTIFY_SOCKET")


def unknown_variables() -> list[str]:
    """Returns the `CAMSERVE_` variables of the environment that are no setting: misspelt, or of another release."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {f"{PREFIX}CONFIG"}
    return sorted(key for key in os.environ if key.startswith(PREFIX) and key not in known)


def load(**flags: Any) -> Settings:
    """Returns the effective settings; flags that are None say nothing.

    Raises ConfigError when a value is not allowed.
    """
    try:
        return Settings(**{key: value for key, value in flags.items() if value is not None})
    except ValidationError as error:
        lines = [
            f"{PREFIX + str(item['loc'][0]).upper()}={item['input']!r}: {item['msg'].removeprefix('Value error, ')}"
            if item["loc"]
            else item["msg"].removeprefix("Value error, ")
            for item in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from None
