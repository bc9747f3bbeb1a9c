from __future__ import annotations

from camserve.v1 import model_watch_pb2 as pb
from camserve_server.core.model_guard import judge
from camserve_server.core.model_watch import Seen, Watched
from camserve_server.rpc.model_watch import watch_message
from camserve_server.stores.model_routes import Canary, Guard, RouteChange, RouteRecord, Routes

FIGURES = {
    "2 answer": {"calls": 12, "errors": 2, "class ant": 3, "class bee": 6, "class ": 1, "pass map1 24": 10},
    "3 shadow": {"calls": 1, "errors": 1},
    "3 against 2": {"pictures": 4, "agreeing": 3, "class ant": -1, "class bee": 1, "maps": 2, "iou": 1.5, "blank": 2},
}
ROUTES = Routes({"stable": "2"}, canary=Canary("3", "stable", 5.0), guard=Guard(min_calls=10))
WATCHED = Watched("3", "2", "answer", 0)


def seen(figures=FIGURES, routes=ROUTES, watched=WATCHED):
    guard = routes.guard or Guard()
    checks = judge(guard, figures, "3", "2", "answer") if watched else []
    return Seen(RouteRecord(7, routes), guard, 1_800_000_000.5, figures, watched, checks)


def test_figures_are_told_by_version_and_by_pair():
    told = watch_message("shapes", seen(), RouteChange(7, 1_800_000_000_000, "ann", "set guard", ""))
    assert (told.routes.revision, told.routes.guard.min_calls, told.window_s, told.watched) == (7, 10, 300, "3")
    assert told.read_at.ToMilliseconds() == 1_800_000_000_500
    assert told.last_change.what == "set guard"
    answering, shadow = told.versions
    assert (answering.version, answering.role, answering.calls, answering.errors) == ("2", "answer", 12, 2)
    assert (answering.p50_ms, answering.p95_ms) == (8.0, 8.0)
    assert [(each.id, each.calls) for each in answering.top_classes] == [("bee", 6), ("ant", 3)]
    assert (shadow.role, shadow.HasField("p50_ms"), len(shadow.top_classes)) == ("shadow", False, 0)
    (pair,) = told.agreements
    assert (pair.version, pair.against, pair.pictures, pair.agreeing, pair.class_shift) == ("3", "2", 4, 3, 0.25)
    assert (pair.heatmaps, pair.blank_heatmaps, pair.heatmap_iou) == (2, 2, 0.75)
    assert not pair.HasField("centre_shift")


def test_checks_are_told_whether_they_have_a_value_or_not():
    checks = {check.limit: check for check in watch_message("shapes", seen(), None).checks}
    assert list(checks) == ["error_rate", "latency_ratio", "agreement", "class_shift", "heatmap_iou", "centre_shift"]
    assert checks["agreement"] == pb.ModelCheck(limit="agreement", value=0.75, bound=0.8, calls=4, state="waiting")
    assert not checks["centre_shift"].HasField("value")


def test_of_a_model_without_canary_and_calls_there_is_little_to_tell():
    told = watch_message("shapes", seen({}, Routes({"stable": "2"}), None), None)
    assert (told.window_s, told.HasField("watched"), told.HasField("last_change")) == (300, False, False)
    assert not told.versions
    assert not told.checks
