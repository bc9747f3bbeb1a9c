"""The settings of single parts, of those of the whole."""

from __future__ import annotations

from camserve_server.base.config import Settings
from camserve_server.core.limits import TenantLimits
from camserve_server.engine.cluster.settings import ClusterSettings
from camserve_server.engine.engine import EngineSettings
from camserve_server.engine.imaging import ImagingSettings

MIB = 1024 * 1024


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
    cluster = ClusterSettings(
        address=settings.ray_address,
        cpus=settings.ray_cpus_per_model,
        gpus=settings.ray_gpus_per_model,
        min_actors=settings.ray_min_actors,
        max_actors=settings.ray_max_actors,
    )
    return EngineSettings(
        models_dirs=(settings.models_dir, settings.data_dir / "models"),
        device=settings.device,
        torch_threads=settings.torch_threads,
        max_batch=settings.max_batch,
        batch_delay_ms=settings.batch_delay_ms,
        queue_limit=settings.queue_limit,
        pass_deadline_s=settings.pass_deadline_s,
        weights_dir=settings.data_dir / "weights",
        load_wait_s=settings.model_load_wait_s,
        memory_bytes=settings.models_memory_mb * MIB if settings.models_memory_mb else None,
        cluster=cluster if settings.engine == "ray" else None,
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
