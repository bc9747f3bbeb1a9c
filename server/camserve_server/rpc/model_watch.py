"""What versions do, as messages."""

from __future__ import annotations

from collections.abc import Mapping

from camserve.v1 import model_watch_pb2 as pb
from camserve_server.core import pass_times
from camserve_server.core.comparisons import Agreement
from camserve_server.core.model_figures import CLASS
from camserve_server.core.model_guard import Check
from camserve_server.core.model_watch import Seen
from camserve_server.rpc.answers import timestamp
from camserve_server.rpc.model_routes import change_message, routes_message
from camserve_server.stores.model_routes import RouteChange

_MOST_CLASSES = 10


def watch_message(model: str, seen: Seen, last: RouteChange | None) -> pb.WatchModelResponse:
    """Returns the figures of a model, and the last change of its routes."""
    versions, agreements = [], []
    for series in sorted(seen.figures):
        version, kind, *against = series.split(" ")
        if against:
            agreements.append(_agreement(version, against[0], seen.figures[series]))
        else:
            versions.append(_version(version, kind, seen.figures[series]))
    return pb.WatchModelResponse(
        read_at=timestamp(round(1000 * seen.at)),
        routes=routes_message(model, seen.record),
        window_s=seen.guard.window_s,
        versions=versions,
        agreements=agreements,
        watched=seen.watched.version if seen.watched else None,
        checks=[_check(check) for check in seen.checks],
        last_change=change_message(last) if last else None,
    )


def _version(version: str, role: str, counts: Mapping[str, float]) -> pb.ModelVersionFigures:
    passes = pass_times.together(pass_times.strata(counts))
    top = {name.removeprefix(CLASS): count for name, count in counts.items() if name.startswith(CLASS)}
    # Those beyond the classes that are counted one by one have no id.
    top.pop("", None)
    first = sorted(top.items(), key=lambda entry: (-entry[1], entry[0]))[:_MOST_CLASSES]
    return pb.ModelVersionFigures(
        version=version,
        role=role,
        calls=round(counts.get("calls", 0)),
        errors=round(counts.get("errors", 0)),
        p50_ms=pass_times.quantile_ms(passes, 0.5),
        p95_ms=pass_times.quantile_ms(passes, 0.95),
        top_classes=[pb.ModelClassCount(id=class_id, calls=round(count)) for class_id, count in first],
    )


def _agreement(version: str, against: str, counts: Mapping[str, float]) -> pb.ModelAgreement:
    found = Agreement.of(counts)
    return pb.ModelAgreement(
        version=version,
        against=against,
        pictures=found.pictures,
        agreeing=found.agreeing,
        class_shift=found.class_shift,
        heatmaps=found.iou.count,
        blank_heatmaps=found.blank,
        heatmap_iou=found.iou.value,
        centre_shift=found.shift.value,
    )


def _check(check: Check) -> pb.ModelCheck:
    return pb.ModelCheck(limit=check.limit, value=check.value, bound=check.bound, calls=check.calls, state=check.state)
