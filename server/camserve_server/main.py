"""The replica: the only place that builds objects and wires them together."""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from prometheus_client import start_http_server

from camserve_server.base.clock import SystemClock
from camserve_server.base.config import Settings
from camserve_server.base.errors import ApiError
from camserve_server.base.telemetry import BATCH_IMAGES, OBJECTS_EXPIRED
from camserve_server.core.health import Health
from camserve_server.core.infer import InferService
from camserve_server.core.links import Links
from camserve_server.core.models import Models
from camserve_server.core.oauth import TokenEndpoint
from camserve_server.core.signing import UrlSigner
from camserve_server.core.token_keys import IssuerKeys, JwksFile
from camserve_server.core.tokens import TokenIssuer, TokenVerifier, VerificationKeys
from camserve_server.engine.buffers import ByteBudget
from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.engine.imaging import ImagingPool, ImagingSettings
from camserve_server.rpc.auth import AuthServicer
from camserve_server.rpc.chain import build_chain
from camserve_server.rpc.health import HealthServicer
from camserve_server.rpc.inference import InferenceServicer
from camserve_server.rpc.interceptors.draining import Draining
from camserve_server.rpc.models import ModelServicer
from camserve_server.rpc.objects import ObjectServicer
from camserve_server.rpc.server import internal_server, listen, public_server
from camserve_server.stores import redis
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects
from camserve_server.stores.oauth_clients import OAuthClients

_log = structlog.get_logger("replica")
MIB = 1024 * 1024


class Replica:
    """One server with its engine, workers and stores."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        """Builds every part; raises PolicyError, KeyRingError or ValueError when a part cannot be built."""
        clock = SystemClock()
        self._settings = settings
        keys_dir = settings.data_dir / "keys"
        self._draining = Draining()
        self._redis = redis.connect(redis_url)
        self._engine = Engine(engine_settings(settings))
        self._imaging = ImagingPool(imaging_settings(settings))
        self._objects = LocalObjects(settings.objects_dir, KeyRing(keys_dir / "objects.json", clock=clock), clock=clock)
        issuer_keys = IssuerKeys(KeyRing(keys_dir / "tokens.json", clock=clock), clock)
        issuers: dict[str, VerificationKeys] = {settings.jwt_issuer: issuer_keys}
        if settings.jwt_external_issuer and settings.jwt_jwks_file:
            issuers[settings.jwt_external_issuer] = JwksFile(settings.jwt_jwks_file)
        issuer = TokenIssuer(
            issuer_keys,
            clock,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            tenant_claim=settings.jwt_tenant_claim,
        )
        verifier = TokenVerifier(issuers, clock, audience=settings.jwt_audience, tenant_claim=settings.jwt_tenant_claim)
        links = Links(
            self._objects,
            UrlSigner(KeyRing(keys_dir / "urls.json", clock=clock)),
            clock,
            prefix=settings.link_prefix,
            ttl_s=settings.url_ttl_s,
            retention_s=settings.heatmap_retention_hours * 3600,
        )
        infer = InferService(
            self._engine,
            self._imaging,
            links,
            timeout_s=settings.sync_timeout_s,
            # Enough to fill the next batch while one runs and the workers decode.
            batch_width=2 * settings.max_batch + settings.imaging_workers,
        )
        health = Health(
            {"engine": self._engine_works, "imaging": self._imaging_works, "store": self._store_works}, clock
        )
        clients = OAuthClients(self._redis, clock=clock)
        self._server, self._health = public_server(
            {
                "inference": InferenceServicer(
                    infer,
                    max_image_bytes=settings.max_image_bytes,
                    budget=ByteBudget(settings.upload_memory_mb * MIB),
                ),
                "models": ModelServicer(Models(self._engine)),
                "objects": ObjectServicer(links),
                "health": HealthServicer(health),
                "auth": AuthServicer(TokenEndpoint(clients, issuer), issuer_keys),
            },
            build_chain(verifier, self._draining),
            max_image_bytes=settings.max_image_bytes,
        )
        self._internal, self._internal_health = internal_server()
        self._janitor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads the models and opens the ports; raises OSError when a port is taken."""
        settings = self._settings
        certificate = None
        if settings.grpc_tls_cert and settings.grpc_tls_key:
            certificate = (settings.grpc_tls_cert, settings.grpc_tls_key)
        listen(self._server, settings.grpc_host, settings.grpc_port, certificate)
        listen(self._internal, "127.0.0.1", settings.internal_port)
        start_http_server(settings.metrics_port, "127.0.0.1")
        self._engine.on_batch = lambda model, size, *_: BATCH_IMAGES.labels(model.name).observe(size)
        await asyncio.gather(self._imaging.start(), self._engine.start())
        for version in self._engine.models():
            _log.info("model", model=version.name, version=version.version, state=version.state, reason=version.reason)
        await self._server.start()
        await self._internal.start()
        self._janitor = asyncio.create_task(self._remove_expired())
        _log.info("ready", grpc=f"{settings.grpc_host}:{settings.grpc_port}")

    async def stop(self) -> None:
        """Refuses new calls, finishes running ones within the drain time, then lets go of everything."""
        _log.info("draining")
        self._draining.close()
        await self._health.enter_graceful_shutdown()
        await self._internal_health.enter_graceful_shutdown()
        await self._server.stop(self._settings.drain_s)
        await self._internal.stop(None)
        if self._janitor:
            self._janitor.cancel()
            await asyncio.gather(self._janitor, return_exceptions=True)
        await self._engine.close()
        await self._imaging.close()
        await self._objects.close()
        await self._redis.aclose()
        _log.info("stopped")

    async def _remove_expired(self) -> None:
        while True:
            try:
                OBJECTS_EXPIRED.inc(await self._objects.remove_expired())
            except ApiError:
                _log.exception("the janitor failed; it tries again")
            await asyncio.sleep(self._settings.janitor_interval_s)

    async def _engine_works(self) -> bool:
        return all(version.state == "ready" for version in self._engine.models())

    async def _imaging_works(self) -> bool:
        return self._imaging.stats().alive > 0

    async def _store_works(self) -> bool:
        with contextlib.suppress(ApiError):
            await redis.ping(self._redis)
            return True
        return False


def engine_settings(settings: Settings) -> EngineSettings:
    """Returns the engine's part of the settings."""
    return EngineSettings(
        models_dirs=(settings.models_dir, settings.data_dir / "models"),
        device=settings.device,
        torch_threads=settings.torch_threads,
        max_batch=settings.max_batch,
        batch_delay_ms=settings.batch_delay_ms,
        queue_limit=settings.queue_limit,
        weights_dir=settings.data_dir / "weights",
    )


def imaging_settings(settings: Settings) -> ImagingSettings:
    """Returns the imaging workers' part of the settings."""
    return ImagingSettings(
        workers=settings.imaging_workers,
        deadline_s=settings.imaging_deadline_s,
        worker_memory_bytes=settings.imaging_memory_mb * MIB,
        max_image_bytes=settings.max_image_bytes,
        max_side_px=settings.max_side_px,
        max_pixels=settings.max_pixels,
        queue_limit=settings.imaging_queue_limit,
    )
