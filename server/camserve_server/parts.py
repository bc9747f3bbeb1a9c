"""The parts of a replica: the only place that builds objects and wires them together."""

from __future__ import annotations

import contextlib
from functools import partial

from camserve_server.base import bundle
from camserve_server.base.audit_log import AuditLog
from camserve_server.base.breaker import Breakers
from camserve_server.base.clock import SystemClock
from camserve_server.base.config import Settings
from camserve_server.base.errors import ApiError
from camserve_server.base.telemetry import (
    BATCH_IMAGES,
    DEVICE_MEMORY_BYTES,
    GATE_CALLS,
    IMAGES_IN_FLIGHT_BYTES,
    IMAGING_BUSY,
    IMAGING_MEMORY_BYTES,
    IMAGING_QUEUE,
)
from camserve_server.core.admission import Admission
from camserve_server.core.antivirus import Antivirus
from camserve_server.core.backlog_watch import BacklogWatch
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
from camserve_server.core.job_changes import JobChanges
from camserve_server.core.job_intake import JobIntake
from camserve_server.core.job_worker import JobWorker
from camserve_server.core.jobs import JobService
from camserve_server.core.labels import LabelLists
from camserve_server.core.limits import LimitAdmin, Limits, StoreWatch
from camserve_server.core.links import Links
from camserve_server.core.model_figures import ModelFigures
from camserve_server.core.model_metrics import ModelMetrics
from camserve_server.core.model_route_changes import RouteChanges
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.core.model_watch import ModelWatch
from camserve_server.core.models import Models
from camserve_server.core.oauth import TokenEndpoint
from camserve_server.core.open_calls import OpenCalls
from camserve_server.core.resumable import ResumableUploads
from camserve_server.core.retention import Retention
from camserve_server.core.shadows import Shadows
from camserve_server.core.signing import UrlSigner
from camserve_server.core.staged_uploads import StagedUploads
from camserve_server.core.sync_or_job import SyncOrJob
from camserve_server.core.token_keys import IssuerKeys
from camserve_server.core.tokens import TokenIssuer, TokenVerifier, VerificationKeys
from camserve_server.core.uploads import Presigning, UploadService
from camserve_server.core.warm_inputs import WarmInputs
from camserve_server.core.webhooks import WebhookService
from camserve_server.engine.buffers import ByteBudget
from camserve_server.engine.engine import Engine
from camserve_server.engine.imaging import ImagingPool
from camserve_server.outbound.clamd import Clamd
from camserve_server.outbound.client import GuardedClient
from camserve_server.outbound.jwks import JwksAddress
from camserve_server.outbound.targets import Allowed
from camserve_server.part_settings import MIB, engine_settings, imaging_settings, tenant_limits
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
from camserve_server.rpc.playground import PlaygroundServicer
from camserve_server.rpc.rate_limit_service import RateLimitServicer
from camserve_server.rpc.reference import ReferenceServicer
from camserve_server.rpc.server import internal_server, public_server
from camserve_server.rpc.signing_again import SigningAgain
from camserve_server.rpc.uploads import UploadServicer
from camserve_server.rpc.webhooks import WebhookServicer
from camserve_server.stores import redis
from camserve_server.stores.backlog import read_backlog
from camserve_server.stores.chosen_objects import open_objects
from camserve_server.stores.durability import Disk
from camserve_server.stores.idempotency import IdempotencyKeys
from camserve_server.stores.job_queue import JobQueue
from camserve_server.stores.jobs import Jobs
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.limits import LimitRecords
from camserve_server.stores.model_figures import FigureRecords
from camserve_server.stores.model_routes import RouteRecords
from camserve_server.stores.oauth_clients import OAuthClients
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.pending_uploads import PendingUploads
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.uploads import Uploads
from camserve_server.stores.usage import Usage
from camserve_server.stores.webhooks import Webhooks


class Parts:
    """Everything that one server consists of, wired together; nothing runs yet."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        """Builds every part; raises PolicyError, KeyRingError or ValueError when a part cannot be built."""
        clock = SystemClock()
        keys_dir = settings.data_dir / "keys"
        self.draining = Draining()
        self.redis = redis.connect(redis_url)
        self.engine = Engine(engine_settings(settings))
        self.imaging = ImagingPool(imaging_settings(settings))
        budget = ByteBudget(settings.upload_memory_mb * MIB, least_bytes=settings.max_image_bytes)
        self.objects, direct_links = open_objects(settings, keys_dir / "objects.json", budget, clock)
        issuer_keys = IssuerKeys(KeyRing(keys_dir / "tokens.json", clock=clock), clock)
        issuers: dict[str, VerificationKeys] = {settings.jwt_issuer: issuer_keys}
        if settings.jwt_external_issuer and settings.jwt_jwks_file:
            issuers[settings.jwt_external_issuer] = JwksFile(settings.jwt_jwks_file)
        self.fetched_keys: FetchedKeys | None = None
        if settings.jwt_external_issuer and settings.jwt_jwks_url:
            address = JwksAddress(settings.jwt_jwks_url, settings.jwt_jwks_ca)
            self.fetched_keys = FetchedKeys(address.fetch, clock, refresh_s=settings.jwt_jwks_cache_s)
            issuers[settings.jwt_external_issuer] = self.fetched_keys
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
            self.objects,
            UrlSigner(url_keys),
            clock,
            prefix=settings.link_prefix,
            ttl_s=settings.url_ttl_s,
            retention=Retention(settings.heatmap_retention_hours, settings.tenant_retention_hours),
            direct=direct_links,
        )
        # Enough to fill the next batch while one runs and the workers decode.
        width = 2 * settings.max_batch + settings.imaging_workers
        # On the CPU decoding takes from the batch that runs: more under way is no sooner done, and all of it goes
        # before the first picture of who comes next.
        job_width = width - settings.max_batch if self.engine.shares_cores else width
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
            pace=self.engine.pictures_per_s,
        )
        figures = ModelFigures(clock)
        self.engine.on_unload = partial(self._forget_version, gate, figures)
        GATE_CALLS.set_function(lambda: gate.under_way)
        IMAGES_IN_FLIGHT_BYTES.set_function(lambda: budget.taken_bytes)
        IMAGING_QUEUE.set_function(lambda: self.imaging.stats().queued)
        IMAGING_BUSY.set_function(lambda: self.imaging.stats().busy)
        IMAGING_MEMORY_BYTES.set_function(lambda: self.imaging.stats().resident_bytes)
        for kind in self.engine.memory_bytes():
            DEVICE_MEMORY_BYTES.labels(kind).set_function(partial(self._memory_bytes, kind))
        self.disk = Disk()
        route_records = RouteRecords(self.redis, self.disk)
        self.routes = ModelRoutes(route_records, self.engine)
        self.engine.protect(self.routes.leads_to)
        self.model_metrics = ModelMetrics(self.engine, self.routes)
        self.shadows = Shadows(self.engine, self.imaging, self.routes, figures)
        route_changes = RouteChanges(route_records, self.routes, self.engine, clock)
        self.watch = ModelWatch(figures, FigureRecords(self.redis), self.routes, route_changes, clock)
        infer = InferService(
            self.engine,
            self.imaging,
            links,
            antivirus,
            gate,
            self.shadows,
            figures,
            timeout_s=settings.sync_timeout_s,
            batch_width=width,
        )
        state_keys = KeyRing(keys_dir / "state.json", clock=clock)
        outbox = Outbox(self.redis)
        jobs = Jobs(self.redis, Sealer(state_keys, "job"), self.disk, outbox)
        queue = JobQueue(self.redis, Sealer(state_keys, "job"), outbox)
        origins = Breakers(
            "image_origins",
            monotonic=clock.monotonic,
            # Shorter than what a job's item waits between its attempts, so that each of them finds out anew.
            longest_s=2.0,
            patience_s=min(5.0, settings.fetch_timeout_s / 2),
        )
        self.outbound = GuardedClient(Allowed.parse(settings.fetch_allow), origins)
        usage, watch = Usage(self.redis), StoreWatch(clock)
        records = LimitRecords(self.redis, self.disk)
        limits = Limits(records, usage, watch, clock, defaults=tenant_limits(settings))
        self.admission = Admission(usage, watch, clock)
        notes = CountedNotes(UrlSigner(url_keys, purpose="counted"), clock)
        urls = ImageUrls(self.outbound, limits, timeout_s=settings.fetch_timeout_s, budget=budget)
        upload_retention = Retention(settings.upload_retention_hours, settings.tenant_retention_hours)
        uploads = UploadService(
            Uploads(self.redis, self.disk),
            self.objects,
            self.imaging,
            antivirus,
            UrlSigner(url_keys, purpose="upload"),
            budget,
            clock,
            prefix=settings.link_prefix,
            link_s=settings.url_ttl_s,
            retention=upload_retention,
        )
        pending = PendingUploads(self.redis, Sealer(state_keys, "pending upload"), self.disk)
        self.resumable = ResumableUploads(pending, uploads, self.objects, direct_links, budget, clock)
        presigning: Presigning = uploads
        if direct_links:
            presigning = StagedUploads(pending, direct_links, clock, link_s=settings.url_ttl_s)
        images = Images(urls, uploads, budget=budget)
        # Nothing takes them where no worker is.
        self.warm = WarmInputs(limit_bytes=settings.upload_memory_mb * MIB // 8 if "worker" in settings.roles else 0)
        intake = JobIntake(jobs, infer, self.objects, self.warm, clock)
        self.job_changes = changes = JobChanges()
        self.worker = JobWorker(
            queue,
            infer,
            self.objects,
            clock,
            width=settings.job_concurrency or job_width,
            lease_s=settings.job_lease_s,
            urls=urls,
            warm=self.warm,
            budget=budget,
            changes=changes,
        )
        intake.on_accept = self.worker.wake
        cursors = Cursors(Sealer(state_keys, "cursor"))
        job_service = JobService(jobs, self.objects, links, cursors, clock, changes)
        webhooks = Webhooks(self.redis, Sealer(state_keys, "webhook"), self.disk)
        self.webhook_client = GuardedClient(Allowed.parse(settings.fetch_allow + settings.webhook_allow))
        webhook_service = WebhookService(
            webhooks, outbox, self.webhook_client, cursors, Sealer(state_keys, "webhook secret")
        )
        self.courier = Courier(
            outbox,
            webhooks,
            webhook_service,
            jobs,
            self.webhook_client,
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
        self.checks = Health(probes, clock)
        self.idempotency = Idempotency(
            IdempotencyKeys(self.redis, Sealer(state_keys, "idempotency"), self.disk), self.objects, clock
        )
        inference = InferenceServicer(
            infer,
            SyncOrJob(infer, intake, sync_bytes=settings.sync_image_bytes, sync_px=settings.sync_pixels),
            images,
            prefix=settings.link_prefix,
            budget=budget,
        )
        chain = build_chain(
            AuditLog(settings.audit_file),
            verifier,
            self.draining,
            limits,
            notes,
            OpenCalls(settings.tenant_open_calls),
            self.idempotency,
            SigningAgain(links, presigning),
            self.routes,
            self.admission,
            inference.refuse_early,
            upload_idle_s=settings.upload_idle_s,
            deprecated=settings.deprecated_methods,
        )
        clients = OAuthClients(self.redis, clock=clock)
        self.server, self.health = public_server(
            {
                "inference": inference,
                "jobs": JobServicer(
                    intake,
                    job_service,
                    images,
                    webhook_service,
                    self.routes,
                    prefix=settings.link_prefix,
                ),
                "webhooks": WebhookServicer(webhook_service, prefix=settings.link_prefix),
                "models": ModelServicer(
                    Models(self.engine, self.routes),
                    LabelLists(self.engine, engine_settings(settings).models_dirs),
                ),
                "objects": ObjectServicer(links, uploads, prefix=settings.link_prefix),
                "uploads": UploadServicer(uploads, self.resumable, presigning, prefix=settings.link_prefix),
                "health": HealthServicer(self.checks),
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
                "playground": PlaygroundServicer(bundle.PLAYGROUND),
            },
            chain,
            max_image_bytes=settings.max_image_bytes,
        )
        admin = AdminServicer(LimitAdmin(records, limits), route_changes, self.watch)
        self.internal, self.internal_health = internal_server(
            {"admin": admin}, chain, RateLimitServicer(limits, notes, gate)
        )
        self.backlog = BacklogWatch(partial(read_backlog, self.redis))
        self.janitor = Janitor(self.objects, jobs, outbox, clock, objects_interval_s=settings.janitor_interval_s)

    def _memory_bytes(self, kind: str) -> int:
        return self.engine.memory_bytes()[kind]

    def _forget_version(self, gate: Gate, figures: ModelFigures, key: tuple[str, str]) -> None:
        gate.forget(key)
        figures.forget(key)
        if not any(model.name == key[0] and model.state == "ready" for model in self.engine.models()):
            BATCH_IMAGES.remove(key[0])

    async def _engine_works(self) -> bool:
        # One that is still to be loaded, or retired, is no fault.
        found = [version for version in self.engine.models() if version.state in ("ready", "unavailable")]
        return all(self.engine.works(version) for version in found)

    async def _imaging_works(self) -> bool:
        return self.imaging.stats().alive > 0

    async def _objects_work(self) -> bool:
        with contextlib.suppress(ApiError):
            await self.objects.check()
            return True
        return False

    async def _store_works(self) -> bool:
        with contextlib.suppress(ApiError):
            await redis.check(self.redis)
            return True
        return False
