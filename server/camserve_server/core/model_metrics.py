"""What the metrics say of versions as they are, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from camserve_server.core.model_routes import ModelRoutes
from camserve_server.engine.engine import Engine


class ModelMetrics(Collector):
    """Of each version its state on this replica, and the share of calls that it takes as a canary."""

    def __init__(self, engine: Engine, routes: ModelRoutes) -> None:
        self._engine = engine
        self._routes = routes

    def describe(self) -> list[Metric]:
        """Returns nothing: what there is to say is known when it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yields the figures of this moment; on a thread of its own."""
        states = GaugeMetricFamily(
            "camserve_model_state",
            "1 for the state that a version is in on this replica: ready, loading, unavailable, retired.",
            labels=["model", "version", "state"],
        )
        for model in self._engine.models():
            states.add_metric([*model.key, model.state], 1)
        yield states
        percents = GaugeMetricFamily(
            "camserve_model_canary_percent",
            "Share of the calls that a version takes as a canary.",
            labels=["model", "version"],
        )
        for name, record in self._routes.known().items():
            if canary := record.routes.canary:
                percents.add_metric([name, canary.version], canary.percent)
        yield percents
