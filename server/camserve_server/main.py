"""The replica: its ports, its work and its end."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import REGISTRY

from camserve_server.base.config import Settings
from camserve_server.base.status_port import StatusPort
from camserve_server.base.tasks import all_completed
from camserve_server.base.telemetry import BATCH_IMAGES, DEVICE_SECONDS
from camserve_server.engine.model import ModelVersion
from camserve_server.parts import Parts
from camserve_server.rpc.server import listen
from camserve_server.stores.durability import check_whole, needs_wait

_log = structlog.get_logger("replica")

_LAST_WORDS_S = 1.0
# What callers left behind when the drain ended, such as the last bytes of an upload, is brought to its end.
_LAST_WORK_S = 5.0


class Replica:
    """One server with its engine, workers and stores."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        """Builds every part; raises PolicyError, KeyRingError or ValueError when a part cannot be built."""
        self._settings = settings
        self._parts = Parts(settings, redis_url)
        self._takes_calls = False
        self._ready = False
        self._status: StatusPort | None = None

    async def start(self) -> None:
        """Loads the models, opens the ports and begins the work of its roles.

        Raises OSError when a port is taken, OperatorError when the store cannot keep what it acknowledges.
        """
        settings, parts = self._settings, self._parts
        certificate = None
        if settings.grpc_tls_cert and settings.grpc_tls_key:
            certificate = (settings.grpc_tls_cert, settings.grpc_tls_key)
        if "api" in settings.roles:
            listen(parts.server, settings.grpc_host, settings.grpc_port, certificate, setting="CAMSERVE_GRPC_PORT")
        inside = certificate if settings.internal_tls else None
        listen(parts.internal, settings.internal_host, settings.internal_port, inside, setting="CAMSERVE_INTERNAL_PORT")
        if parts.fetched_keys:
            parts.fetched_keys.start()
        await check_whole(parts.redis)
        REGISTRY.register(parts.model_metrics)
        loop = asyncio.get_running_loop()
        self._status = StatusPort(settings.metrics_host, settings.metrics_port, lambda: self._ready, loop)
        parts.disk.wait = await needs_wait(parts.redis)
        if {"api", "worker"} & set(settings.roles):
            # The routes first: they say which versions are needed, whatever memory those take.
            await parts.routes.start()
            await self._start_engine()
            parts.shadows.start()
            parts.watch.start()
        if "api" in settings.roles:
            await parts.server.start()
            self._takes_calls = True
        await parts.internal.start()
        if "worker" in settings.roles:
            parts.worker.start()
        if "courier" in settings.roles:
            parts.courier.start()
        if "janitor" in settings.roles:
            parts.janitor.start()
            parts.backlog.start()
        grpc_at = f"{settings.grpc_host}:{settings.grpc_port}" if "api" in settings.roles else None
        self._ready = True
        _log.info("ready", roles=settings.roles, grpc=grpc_at)

    async def _start_engine(self) -> None:
        self._parts.engine.on_batch = _count_batch
        await asyncio.gather(self._parts.imaging.start(), self._parts.engine.start())

    async def stop(self) -> None:
        """Says that it stops, refuses new calls once that is known, finishes running ones, lets go of everything.

        Running calls have the drain time.
        """
        parts = self._parts
        self._ready = False
        await parts.health.enter_graceful_shutdown()
        await parts.internal_health.enter_graceful_shutdown()
        if self._takes_calls:
            _log.info("leaving")
            await asyncio.sleep(self._settings.lame_duck_s)
        _log.info("draining")
        parts.draining.close()
        # Before their time is over, so that those who watch a job still hear why it ends.
        asyncio.get_running_loop().call_later(max(0.0, self._settings.drain_s - _LAST_WORDS_S), parts.job_changes.close)
        await asyncio.gather(
            self._stop_server(),
            parts.worker.stop(self._settings.drain_s),
            parts.courier.stop(self._settings.drain_s),
        )
        await parts.resumable.close(_LAST_WORK_S)
        await all_completed(_LAST_WORK_S)
        await parts.idempotency.close()
        await parts.admission.close()
        await parts.checks.close()
        parts.warm.close()
        await parts.internal.stop(None)
        await parts.watch.close()
        await parts.routes.close()
        await parts.shadows.close()
        await parts.janitor.stop()
        await parts.backlog.stop()
        await parts.engine.close()
        await parts.imaging.close()
        await parts.outbound.close()
        await parts.webhook_client.close()
        if parts.fetched_keys:
            await parts.fetched_keys.close()
        await parts.objects.close()
        await parts.redis.aclose()
        if self._status:
            await asyncio.to_thread(self._status.close)
        _log.info("stopped")

    async def _stop_server(self) -> None:
        # Without the role it never started.
        if "api" in self._settings.roles:
            self._parts.health.end_streams()
            await self._parts.server.stop(self._settings.drain_s)


def _count_batch(model: ModelVersion, size: int, inference_ms: float, cam_ms: float) -> None:
    BATCH_IMAGES.labels(model.name).observe(size)
    DEVICE_SECONDS.labels(*model.key).inc((inference_ms + cam_ms) / 1000)
