"""LimitService: what the caller's tenant may do."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import timestamp_pb2

from camserve.v1 import limits_pb2 as pb
from camserve_server.core.limits import Limits
from camserve_server.core.retention import Retention
from camserve_server.rpc.call import Call
from camserve_server.rpc.options import MAX_HEATMAP_SIDE_PX

_LONGEST_JOB_HOURS = 720.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """What every tenant of this deployment has in common."""

    max_json_bytes: int
    max_side_px: int
    max_pixels: int
    sync_timeout_s: float


class LimitServicer:
    """Tells callers their limits."""

    def __init__(self, limits: Limits, retention: Retention, deployment: Deployment) -> None:
        self._limits = limits
        self._retention = retention
        self._deployment = deployment

    async def get_limits(self, call: Call, request: pb.GetLimitsRequest) -> pb.Limits:
        """Returns the limits and what is used of them."""
        tenant = call.identity.tenant
        limits, remaining, used = await self._limits.report(tenant)
        return pb.Limits(
            tenant=tenant,
            requests_per_second=pb.Limits.RequestRate(
                limit=limits.requests_per_second, burst=limits.burst, remaining=remaining
            ),
            images_per_day=pb.Limits.ImageQuota(
                limit=limits.images_per_day,
                used=used.images,
                resets_at=timestamp_pb2.Timestamp(seconds=used.resets_s),
            ),
            concurrency=pb.Limits.Concurrency(limit=limits.concurrency, in_use=used.running),
            max_image_bytes=limits.max_image_bytes,
            max_json_bytes=self._deployment.max_json_bytes,
            max_batch_size=limits.max_batch_size,
            max_side_px=self._deployment.max_side_px,
            max_pixels=self._deployment.max_pixels,
            max_cam_side_px=MAX_HEATMAP_SIDE_PX,
            sync_timeout_s=self._deployment.sync_timeout_s,
            retention_hours=pb.Limits.Retention(default=self._retention.seconds(tenant) / 3600, max=_LONGEST_JOB_HOURS),
        )
