"""HealthService: how the replica is."""

from __future__ import annotations

from camserve.v1 import health_pb2 as pb
from camserve_server.core.health import Health
from camserve_server.rpc.call import Call


class HealthServicer:
    """Tells how the replica is."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def get_health(self, call: Call, request: pb.GetHealthRequest) -> pb.GetHealthResponse:
        """Returns the state of every part."""
        report = await self._health.report()
        return pb.GetHealthResponse(
            status=pb.GetHealthResponse.serving if report.healthy else pb.GetHealthResponse.degraded,
            version=report.version,
            uptime_s=int(report.uptime_s),
            components=[pb.ComponentHealth(name=name, healthy=healthy) for name, healthy in report.components.items()],
        )
