"""The replica: the only place that builds objects and wires them together."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import structlog
from prometheus_client import start_http_server

from camserve_server.base import bundle
from camserve_server.base.breaker import Breakers
from camserve_server.base.clock import SystemClock
from camserve_server.base.config import Settings
from camserve_server.base.errors import ApiError
from camserve_server.base.tasks import all_completed
from camserve_server.base.telemetry import (
    BATCH_IMAGES,
    ENGINE_QUEUE,
    GATE_CALLS,
    IMAGES_IN_FLIGHT_BYTES,
    IMAGING_BUSY,
    IMAGING_QUEUE,
)
from camserve_server.core.admission import Admission
from camserve_server.core.antivirus import Antivirus
from camserve_server.core.counted import CountedNotes
from camserve_server.core.courier import Courier
from camserve_server.core.cursors import Cursors
from camserve_server.core.external_keys import FetchedKeys, JwksFile
from camserve_server.core.gate import Gate
from camserve_server.core.health import Health
from camserve_server.core.idempotency import Idempotency
from camserve_server.core.image_urls import ImageUrls
from camserve_server.core.infer import InferService
from camserve_server.core.janitor import Janitor
from camserve_server.core.job_intake import JobIntake
from camserve_server.core.job_worker import JobWorker
from camserve_server.core.jobs import JobService
from camserve_server.core.limits import LimitAdmin, Limits, StoreWatch, TenantLimits
from camserve_server.core.links import Links
from camserve_server.core.models import Models
from camserve_server.core.oauth import TokenEndpoint
from camserve_server.core.open_calls import OpenCalls
from camserve_server.core.resumable import ResumableUploads
from camserve_server.core.retention import Retention
from camserve_server.core.signing import UrlSigner
from camserve_server.core.staged_uploads import StagedUploads
from camserve_server.core.sync_or_job import SyncOrJob
from camserve_server.core.token_keys import IssuerKeys
from camserve_server.core.tokens import TokenIssuer, TokenVerifier, VerificationKeys
from camserve_server.core.uploads import Presigning, UploadService
from camserve_server.core.warm_inputs import WarmInputs
from camserve_server.core.webhooks import WebhookService
from camserve_server.engine.buffers import ByteBudget
from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.engine.imaging import ImagingPool, ImagingSettings
from camserve_server.outbound.clamd import Clamd
from camserve_server.outbound.client import GuardedClient
from camserve_server.outbound.jwks import JwksAddress
from camserve_server.outbound.targets import Allowed
from camserve_server.rpc.admin import AdminServicer
from camserve_server.rpc.auth import AuthServicer
from camserve_server.rpc.chain import build_chain
from camserve_server.rpc.health import HealthServicer
from camserve_server.rpc.images import Images
from camserve_server.rpc.inference import InferenceServicer
from camserve_server.rpc.interceptors.draining import Draining
from camserve_server.rpc.jobs import JobServicer
from camserve_server.rpc.limits import Deployment, LimitServicer
from camserve_server.rpc.models import ModelServicer
from camserve_server.rpc.objects import ObjectServicer
from camserve_server.rpc.rate_limit_service import RateLimitServicer
from camserve_server.rpc.reference import ReferenceServicer
from camserve_server.rpc.server import internal_server, listen, public_server
from camserve_server.rpc.signing_again import SigningAgain
from camserve_server.rpc.uploads import UploadServicer
from camserve_server.rpc.webhooks import WebhookServicer
from camserve_server.stores import redis
from camserve_server.stores.chosen_objects import open_objects
from camserve_server.stores.durability import Disk, needs_wait
from camserve_server.stores.idempotency import IdempotencyKeys
from camserve_server.stores.job_queue import JobQueue
from camserve_server.stores.jobs import Jobs
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.limits import LimitRecords
from camserve_server.stores.oauth_clients import OAuthClients
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.pending_uploads import PendingUploads
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.uploads import Uploads
from camserve_server.stores.usage import Usage
from camserve_server.stores.webhooks import Webhooks

_log = structlog.get_logger("replica")

# What callers left behind when the drain ended, such as the last bytes of an upload, is brought to its end.
_LAST_WORK_S = 5.0
MIB = 1024 * 1024


class Replica:
    """One server with its engine, workers and stores."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        """Builds every part; raises PolicyError, KeyRingError or ValueError when a part cannot be built."""
        clock = SystemClock()
        self._settings = settings
        keys_dir = settings.data_dir / "keys"
        self._draining = Draining()
        self._takes_calls = False
        self._redis = redis.connect(redis_url)
        self._engine = Engine(engine_settings(settings))
        self._imaging = ImagingPool(imaging_settings(settings))
        budget = ByteBudget(settings.upload_memory_mb * MIB, least_bytes=settings.max_image_bytes)
        self._objects, direct_links = open_objects(settings, keys_dir / "objects.json", budget, clock)
        issuer_keys = IssuerKeys(KeyRing(keys_dir / "tokens.json", clock=clock), clock)
        issuers: dict[str, VerificationKeys] = {settings.jwt_issuer: issuer_keys}
        if settings.jwt_external_issuer and settings.jwt_jwks_file:
            issuers[settings.jwt_external_issuer] = JwksFile(settings.jwt_jwks_file)
        self._fetched_keys: FetchedKeys | None = None
        if settings.jwt_external_issuer and settings.jwt_jwks_url:
            address = JwksAddress(settings.jwt_jwks_url, settings.jwt_jwks_ca)
            self._fetched_keys = FetchedKeys(address.fetch, clock, refresh_s=settings.jwt_jwks_cache_s)
            issuers[settings.jwt_external_issuer] = self._fetched_keys
        issuer = TokenIssuer(
            issuer_keys,
            clock,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            tenant_claim=settings.jwt_tenant_claim,
        )
        verifier = TokenVerifier(issuers, clock, audience=settings.jwt_audience, tenant_claim=settings.jwt_tenant_claim)
        url_keys = KeyRing(keys_dir / "urls.json", clock=clock)
        links = Links(
            self._objects,
            UrlSigner(url_keys),
            clock,
            prefix=settings.link_prefix,
            ttl_s=settings.url_ttl_s,
            retention=Retention(settings.heatmap_retention_hours, settings.tenant_retention_hours),
            direct=direct_links,
        )
        # Enough to fill the next batch while one runs and the workers decode.
        width = 2 * settings.max_batch + settings.imaging_workers
        antivirus = Antivirus(
            Clamd(settings.clamd, timeout_s=settings.clamd_timeout_s) if settings.clamd else None,
            clock,
            fail_open=settings.clamd_fail_open,
        )
        gate = Gate(
            wait_s=settings.queue_wait_s,
            least=width,
            most=settings.queue_limit,
            monotonic=clock.monotonic,
            pace=self._engine.pictures_per_s,
        )
        GATE_CALLS.set_function(lambda: gate.under_way)
        IMAGES_IN_FLIGHT_BYTES.set_function(lambda: budget.taken_bytes)
        IMAGING_QUEUE.set_function(lambda: self._imaging.stats().queued)
        IMAGING_BUSY.set_function(lambda: self._imaging.stats().busy)
        infer = InferService(
            self._engine, self._imaging, links, antivirus, gate, timeout_s=settings.sync_timeout_s, batch_width=width
        )
        state_keys = KeyRing(keys_dir / "state.json", clock=clock)
        self._disk = Disk()
        outbox = Outbox(self._redis)
        self._jobs = Jobs(self._redis, Sealer(state_keys, "job"), self._disk, outbox)
        queue = JobQueue(self._redis, Sealer(state_keys, "job"), outbox)
        origins = Breakers(
            "image_origins",
            monotonic=clock.monotonic,
            # Shorter than what a job's item waits between its attempts, so that each of them finds out anew.
            longest_s=2.0,
            patience_s=min(5.0, settings.fetch_timeout_s / 2),
        )
        self._outbound = GuardedClient(Allowed.parse(settings.fetch_allow), origins)
        usage, watch = Usage(self._redis), StoreWatch(clock)
        records = LimitRecords(self._redis, self._disk)
        limits = Limits(records, usage, watch, clock, defaults=tenant_limits(settings))
        self._admission = Admission(usage, watch)
        notes = CountedNotes(UrlSigner(url_keys, purpose="counted"), clock)
        urls = ImageUrls(self._outbound, limits, timeout_s=settings.fetch_timeout_s, budget=budget)
        upload_retention = Retention(settings.upload_retention_hours, settings.tenant_retention_hours)
        uploads = UploadService(
            Uploads(self._redis, self._disk),
            self._objects,
            self._imaging,
            antivirus,
            UrlSigner(url_keys, purpose="upload"),
            budget,
            clock,
            prefix=settings.link_prefix,
            link_s=settings.url_ttl_s,
            retention=upload_retention,
        )
        pending = PendingUploads(self._redis, Sealer(state_keys, "pending upload"), self._disk)
        self._resumable = ResumableUploads(pending, uploads, self._objects, direct_links, budget, clock)
        presigning: Presigning = uploads
        if direct_links:
            presigning = StagedUploads(pending, direct_links, clock, link_s=settings.url_ttl_s)
        images = Images(urls, uploads, budget=budget)
        # Nothing takes them where no worker is.
        self._warm = WarmInputs(limit_bytes=settings.upload_memory_mb * MIB // 8 if "worker" in settings.roles else 0)
        intake = JobIntake(self._jobs, queue, infer, self._objects, self._warm, clock)
        self._worker = JobWorker(
            queue,
            infer,
            self._objects,
            clock,
            width=settings.job_concurrency or width,
            lease_s=settings.job_lease_s,
            urls=urls,
            warm=self._warm,
            budget=budget,
        )
        intake.on_accept = self._worker.wake
        cursors = Cursors(Sealer(state_keys, "cursor"))
        job_service = JobService(self._jobs, self._objects, links, cursors, clock)
        webhooks = Webhooks(self._redis, Sealer(state_keys, "webhook"), self._disk)
        self._webhook_client = GuardedClient(Allowed.parse(settings.fetch_allow + settings.webhook_allow))
        webhook_service = WebhookService(
            webhooks, outbox, self._webhook_client, cursors, Sealer(state_keys, "webhook secret")
        )
        self._courier = Courier(
            outbox,
            webhooks,
            webhook_service,
            self._jobs,
            self._webhook_client,
            clock,
            prefix=settings.link_prefix,
            pause_s=settings.webhook_retry_s,
        )
        probes = {
            "engine": self._engine_works,
            "imaging": self._imaging_works,
            "store": self._store_works,
            "objects": self._objects_work,
        }
        if settings.clamd:
            probes["antivirus"] = antivirus.works
        self._parts = Health(probes, clock)
        self._idempotency = Idempotency(
            IdempotencyKeys(self._redis, Sealer(state_keys, "idempotency"), self._disk), self._objects, clock
        )
        inference = InferenceServicer(
            infer,
            SyncOrJob(infer, intake, sync_bytes=settings.sync_image_bytes, sync_px=settings.sync_pixels),
            images,
            prefix=settings.link_prefix,
            budget=budget,
        )
        chain = build_chain(
            verifier,
            self._draining,
            limits,
            notes,
            OpenCalls(settings.tenant_open_calls),
            self._idempotency,
            SigningAgain(links, presigning),
            self._admission,
            inference.refuse_early,
            upload_idle_s=settings.upload_idle_s,
        )
        clients = OAuthClients(self._redis, clock=clock)
        self._server, self._health = public_server(
            {
                "inference": inference,
                "jobs": JobServicer(
                    intake,
                    job_service,
                    images,
                    webhook_service,
                    prefix=settings.link_prefix,
                ),
                "webhooks": WebhookServicer(webhook_service, prefix=settings.link_prefix),
                "models": ModelServicer(Models(self._engine)),
                "objects": ObjectServicer(links, uploads, prefix=settings.link_prefix),
                "uploads": UploadServicer(uploads, self._resumable, presigning, prefix=settings.link_prefix),
                "health": HealthServicer(self._parts),
                "auth": AuthServicer(TokenEndpoint(clients, issuer), issuer_keys),
                "limits": LimitServicer(
                    limits,
                    upload_retention,
                    Deployment(
                        max_json_bytes=settings.max_json_bytes,
                        max_side_px=settings.max_side_px,
                        max_pixels=settings.max_pixels,
                        sync_timeout_s=settings.sync_timeout_s,
                    ),
                ),
                "reference": ReferenceServicer(bundle.REFERENCE),
            },
            chain,
            max_image_bytes=settings.max_image_bytes,
        )
        self._internal, self._internal_health = internal_server(
            {"admin": AdminServicer(LimitAdmin(records, limits))}, chain, RateLimitServicer(limits, notes, gate)
        )
        self._janitor = Janitor(
            self._objects, self._jobs, outbox, clock, objects_interval_s=settings.janitor_interval_s
        )

    async def start(self) -> None:
        """Loads the models, opens the ports and begins the work of its roles.

        Raises OSError when a port is taken, OperatorError when the store cannot keep what it acknowledges.
        """
        settings = self._settings
        certificate = None
        if settings.grpc_tls_cert and settings.grpc_tls_key:
            certificate = (settings.grpc_tls_cert, settings.grpc_tls_key)
        if "api" in settings.roles:
            listen(self._server, settings.grpc_host, settings.grpc_port, certificate)
        listen(self._internal, "127.0.0.1", settings.internal_port)
        if self._fetched_keys:
            self._fetched_keys.start()
        start_http_server(settings.metrics_port, "127.0.0.1")
        self._disk.wait = await needs_wait(self._redis)
        if {"api", "worker"} & set(settings.roles):
            await self._start_engine()
        if "api" in settings.roles:
            await self._server.start()
            self._takes_calls = True
        await self._internal.start()
        if "worker" in settings.roles:
            self._worker.start()
        if "courier" in settings.roles:
            self._courier.start()
        if "janitor" in settings.roles:
            self._janitor.start()
        grpc_at = f"{settings.grpc_host}:{settings.grpc_port}" if "api" in settings.roles else None
        _log.info("ready", roles=settings.roles, grpc=grpc_at)

    async def _start_engine(self) -> None:
        self._engine.on_batch = lambda model, size, *_: BATCH_IMAGES.labels(model.name).observe(size)
        await asyncio.gather(self._imaging.start(), self._engine.start())
        for version in self._engine.models():
            ENGINE_QUEUE.labels(*version.key).set_function(partial(self._engine.waiting, version))
            _log.info("model", model=version.name, version=version.version, state=version.state, reason=version.reason)

    async def stop(self) -> None:
        """Says that it stops, refuses new calls once that is known, finishes running ones, lets go of everything.

        Running calls have the drain time.
        """
        await self._health.enter_graceful_shutdown()
        await self._internal_health.enter_graceful_shutdown()
        if self._takes_calls:
            _log.info("leaving")
            await asyncio.sleep(self._settings.lame_duck_s)
        _log.info("draining")
        self._draining.close()
        await asyncio.gather(
            self._stop_server(), self._worker.stop(self._settings.drain_s), self._courier.stop(self._settings.drain_s)
        )
        await self._resumable.close(_LAST_WORK_S)
        await all_completed(_LAST_WORK_S)
        await self._idempotency.close()
        await self._admission.close()
        await self._parts.close()
        self._warm.close()
        await self._internal.stop(None)
        await self._janitor.stop()
        await self._engine.close()
        await self._imaging.close()
        await self._outbound.close()
        await self._webhook_client.close()
        if self._fetched_keys:
            await self._fetched_keys.close()
        await self._objects.close()
        await self._redis.aclose()
        _log.info("stopped")

    async def _stop_server(self) -> None:
        # Without the role it never started.
        if "api" in self._settings.roles:
            await self._server.stop(self._settings.drain_s)

    async def _engine_works(self) -> bool:
        return all(self._engine.works(version) for version in self._engine.models())

    async def _imaging_works(self) -> bool:
        return self._imaging.stats().alive > 0

    async def _objects_work(self) -> bool:
        with contextlib.suppress(ApiError):
            await self._objects.check()
            return True
        return False

    async def _store_works(self) -> bool:
        with contextlib.suppress(ApiError):
            await redis.check(self._redis)
            return True
        return False


def tenant_limits(settings: Settings) -> TenantLimits:
    """Returns the limits of a tenant without any of its own."""
    return TenantLimits(
        requests_per_second=settings.tenant_rps,
        burst=settings.tenant_burst,
        images_per_day=settings.tenant_images_per_day,
        concurrency=settings.tenant_concurrency,
        max_batch_size=settings.tenant_max_batch,
        max_image_bytes=settings.max_image_bytes,
    )


def engine_settings(settings: Settings) -> EngineSettings:
    """Returns the engine's part of the settings."""
    return EngineSettings(
        models_dirs=(settings.models_dir, settings.data_dir / "models"),
        device=settings.device,
        torch_threads=settings.torch_threads,
        max_batch=settings.max_batch,
        batch_delay_ms=settings.batch_delay_ms,
        queue_limit=settings.queue_limit,
        pass_deadline_s=settings.pass_deadline_s,
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
