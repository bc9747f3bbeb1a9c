"""Watches a canary: the figures of all replicas together, and the canary's end when they pass a limit."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import structlog

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended
from camserve_server.base.telemetry import FIGURES_UNSEEN, MODEL_ROLLBACKS
from camserve_server.core.model_figures import ModelFigures, Role
from camserve_server.core.model_guard import Check, judge
from camserve_server.core.model_route_changes import RouteChanges, canary
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.engine.manifest import DEFAULT_ALIAS
from camserve_server.stores.model_figures import SPAN_S, FigureRecords, Figures, add
from camserve_server.stores.model_routes import Guard, RouteRecord, Routes

_log = structlog.get_logger("watch")

_TURN_S = 1.0
# Who ends a canary, in the history of the routes.
_BY = "camserve"
_LONGEST_WHY = 500
# Spans that replicas may still be adding to.
_OPEN_SPANS = 3


@dataclass(frozen=True, slots=True)
class Watched:
    """The version that is compared with the one that answers: the canary, or without one the shadow."""

    version: str
    against: str
    role: Role
    since_ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The figures of a model in its window, and how the version that is watched stands to the limits."""

    record: RouteRecord
    guard: Guard
    at: float
    figures: Figures
    watched: Watched | None
    checks: list[Check]


class ModelWatch:
    """Writes this replica's figures, reads those of all, and rolls back a canary that passes a limit of its guard.

    While the store is away nothing is judged: no canary ends by figures that are old.
    """

    def __init__(
        self, figures: ModelFigures, records: FigureRecords, routes: ModelRoutes, changes: RouteChanges, clock: Clock
    ) -> None:
        self._figures = figures
        self._records = records
        self._routes = routes
        self._changes = changes
        self._clock = clock
        # Spans that are over, by model.
        self._over: dict[str, dict[int, Figures]] = {}
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to watch."""
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Watches no longer."""
        if self._watching:
            await ended([self._watching])

    async def turn(self) -> None:
        """Writes what is new here and judges every canary that has a guard; raises ApiError(STORE_UNAVAILABLE)."""
        await self._write()
        for model, record in self._routes.known().items():
            if record.routes.guard and record.routes.canary:
                await self._judge(model, record)

    async def seen(self, model: str, record: RouteRecord) -> Seen:
        """Returns the figures of a model with these routes; raises ApiError(STORE_UNAVAILABLE).

        Those since the canary or the shadow began, if that is within the window. Without a guard the usual limits tell.
        """
        guard, now = record.routes.guard or Guard(), self._clock.now()
        watched = watched_by(record.routes)
        figures = await self._read(model, guard.window_s, now, watched.since_ms / 1000 if watched else 0.0)
        checks = judge(guard, figures, watched.version, watched.against, watched.role) if watched else []
        return Seen(record, guard, now, figures, watched, checks)

    async def _write(self) -> None:
        taken = self._figures.take()
        if not taken:
            return
        known = self._routes.known()
        guards = [known[model].routes.guard for model, _ in taken if model in known]
        keep_s = max((guard.window_s for guard in guards if guard), default=0)
        try:
            await self._records.write(taken, keep_s=max(keep_s, Guard().window_s))
        except ApiError:
            self._figures.give_back(taken)
            raise

    async def _judge(self, model: str, record: RouteRecord) -> None:
        seen = await self.seen(model, record)
        passed = [check for check in seen.checks if check.state == "passed"]
        if not passed or seen.watched is None:
            return
        version = seen.watched.version
        why = f"canary {version} rolled back: {'; '.join(check.why for check in passed)}"[:_LONGEST_WHY]
        try:
            await self._changes.make(model, canary(None), by=_BY, why=why, expected=record.revision)
        except ApiError as error:
            if error.reason is Reason.STORE_UNAVAILABLE:
                raise
            # Another replica was faster, or an operator, and the next turn judges by the new routes; or this replica
            # does not have the model, and one that has it makes the change.
            return
        MODEL_ROLLBACKS.labels(model, passed[0].limit).inc()
        _log.warning("a canary is rolled back", model=model, version=version, why=why)

    async def _read(self, model: str, window_s: int, now: float, since: float) -> Figures:
        newest = int(now // SPAN_S)
        # A span that began before the canary did has figures of calls that it did not get.
        oldest = max(newest - math.ceil(window_s / SPAN_S) + 1, math.ceil(since / SPAN_S))
        wanted = range(oldest, newest + 1)
        over = self._over.get(model, {})
        found = await self._records.read(model, [span for span in wanted if span not in over])
        spans = {span: over[span] if span in over else found[span] for span in wanted}
        self._over[model] = {span: figures for span, figures in spans.items() if span <= newest - _OPEN_SPANS}
        # A few milliseconds where there are many classes.
        return await asyncio.to_thread(_sum, list(spans.values()))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TURN_S)
            try:
                await self.turn()
            except ApiError:
                FIGURES_UNSEEN.inc()
            except Exception:
                # Such as figures of a later release; watching goes on.
                FIGURES_UNSEEN.inc()
                _log.exception("figures that cannot be judged")


def _sum(spans: list[Figures]) -> Figures:
    total: Figures = {}
    for figures in spans:
        add(total, figures)
    return total


def watched_by(routes: Routes) -> Watched | None:
    """Returns which version is compared with which; None where there is neither canary nor shadow."""
    if tried := routes.canary:
        return Watched(tried.version, routes.aliases.get(tried.alias, ""), "answer", tried.since_ms)
    if shadow := routes.shadow:
        return Watched(shadow.version, routes.aliases.get(DEFAULT_ALIAS, ""), "shadow", shadow.since_ms)
    return None
