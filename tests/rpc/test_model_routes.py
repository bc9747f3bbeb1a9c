from __future__ import annotations

from dataclasses import asdict

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from camserve.v1 import model_routes_pb2 as pb
from camserve_server.base.errors import ApiError, Reason
from camserve_server.rpc.ending import deprecation_headers, with_one_end
from camserve_server.rpc.interceptors.validate import check
from camserve_server.rpc.model_routes import edit_of, routes_message
from camserve_server.stores.model_routes import Canary, Deprecation, Guard, RouteRecord, Routes, Shadow

Change = pb.ChangeModelRoutesRequest
START = Routes(aliases={"stable": "2"})


def deprecated(since, sunset=None, **fields):
    dates = pb.ModelDeprecation(deprecated_at=Timestamp(seconds=since), **fields)
    if sunset is not None:
        dates.sunset_at.seconds = sunset
    return {"deprecate": Change.Deprecate(version="1", deprecation=dates)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"promote": Change.Promote(version="1")}, Routes({"stable": "1"}, {"stable": "2"})),
        ({"promote": Change.Promote(version="1", alias="next")}, Routes({"stable": "2", "next": "1"})),
        (
            {"canary": pb.ModelCanary(version="1", percent=5, tenants=["acme"], by="key")},
            Routes({"stable": "2"}, canary=Canary("1", "stable", 5.0, ("acme",), "key")),
        ),
        (
            {"canary": pb.ModelCanary(version="1", percent=5)},
            Routes({"stable": "2"}, canary=Canary("1", "stable", 5.0)),
        ),
        ({"pin": Change.Pin(tenant="acme", version="1")}, Routes({"stable": "2"}, pins={"acme": "1"})),
        ({"shadow": pb.ModelShadow(version="1", percent=5)}, Routes({"stable": "2"}, shadow=Shadow("1", 5.0))),
        (
            {"canary": pb.ModelCanary(version="1", percent=5, shadow_percent=50)},
            Routes({"stable": "2"}, canary=Canary("1", "stable", 5.0, shadow_percent=50.0)),
        ),
        ({"guard": pb.ModelGuard()}, Routes({"stable": "2"}, guard=Guard())),
        (
            {"guard": pb.ModelGuard(min_calls=10, max_error_rate=0, min_heatmap_iou=0.5)},
            Routes({"stable": "2"}, guard=Guard(min_calls=10, max_error_rate=0.0, min_heatmap_iou=0.5)),
        ),
        (deprecated(1, 2), Routes({"stable": "2"}, deprecations={"1": Deprecation(1, 2)})),
        *[
            (change, START)
            for change in (
                {"end_canary": Change.EndCanary()},
                {"end_shadow": Change.EndShadow()},
                {"end_guard": Change.EndGuard()},
                {"unpin": Change.Unpin(tenant="acme")},
                {"end_deprecation": Change.EndDeprecation(version="1")},
            )
        ],
    ],
)
def test_every_change_is_understood_and_told(change, expected):
    request = Change(model="shapes", **change)
    check(request)
    routes = edit_of(request).apply(START)
    assert routes == expected
    told = routes_message("shapes", RouteRecord(7, routes))
    assert (told.revision, dict(told.aliases), dict(told.previous)) == (7, expected.aliases, expected.previous)
    assert dict(told.pins) == expected.pins
    assert told.HasField("canary") == bool(expected.canary)
    assert told.HasField("shadow") == bool(expected.shadow)
    assert told.HasField("guard") == bool(expected.guard)
    if expected.guard:
        assert {field.name: value for field, value in told.guard.ListFields()} == asdict(expected.guard)
    assert set(told.deprecations) == set(expected.deprecations)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"promote": Change.Promote()},
        {"promote": Change.Promote(version="../1")},
        {"canary": pb.ModelCanary(version="1", percent=101)},
        {"canary": pb.ModelCanary(version="1", percent=5, by="address")},
        {"canary": pb.ModelCanary(version="1", tenants=["a", "a"])},
        {"pin": Change.Pin(tenant="a b", version="1")},
        {"shadow": pb.ModelShadow(version="1")},
        {"canary": pb.ModelCanary(version="1", percent=5, shadow_percent=101)},
        {"guard": pb.ModelGuard(min_calls=9)},
        {"guard": pb.ModelGuard(window_s=1801)},
        {"guard": pb.ModelGuard(max_latency_ratio=0.5)},
        {"guard": pb.ModelGuard(min_agreement=1.1)},
        {"deprecate": Change.Deprecate(version="1")},
        deprecated(1, link='https://x.example/">'),
        deprecated(1, link="https://x.example/\r\nset-cookie: a"),
        {"promote": Change.Promote(version="1"), "why": "x" * 501},
    ],
)
def test_what_is_no_change_is_refused(change):
    with pytest.raises(ApiError) as caught:
        check(Change(model="shapes", **change))
    assert caught.value.reason in (Reason.PARAM_INVALID, Reason.PARAM_OUT_OF_RANGE)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (deprecated(10, 9), Reason.PARAM_INVALID),
        (deprecated(-1), Reason.PARAM_OUT_OF_RANGE),
        (deprecated(1, 10**12), Reason.PARAM_OUT_OF_RANGE),
    ],
)
def test_dates_that_no_header_can_carry_are_refused(change, expected):
    request = Change(model="shapes", **change)
    check(request)
    with pytest.raises(ApiError) as caught:
        edit_of(request)
    assert caught.value.reason is expected


def test_headers_say_only_what_is_known():
    assert deprecation_headers(Deprecation(1_798_761_600)) == {"deprecation": "@1798761600"}
    last = deprecation_headers(Deprecation(0, 253_402_300_799, "https://x.example/a"))
    assert last == {
        "deprecation": "@0",
        "sunset": "Fri, 31 Dec 9999 23:59:59 GMT",
        "link": '<https://x.example/a>; rel="deprecation"',
    }


def test_of_two_ends_an_answer_says_the_first_one_whole():
    sooner = deprecation_headers(Deprecation(300, 5000, "https://x.example/a"))
    later, open_end = deprecation_headers(Deprecation(100, 6000)), deprecation_headers(Deprecation(200))
    earlier = deprecation_headers(Deprecation(100, link="https://x.example/b"))
    answer = {"location": "/v1/jobs/1"}
    for one, other, told in (
        (sooner, later, sooner),
        (later, sooner, sooner),
        (open_end, later, later),
        (open_end, earlier, earlier),
        ({}, later, later),
        (later, {}, later),
        ({}, {}, {}),
    ):
        assert with_one_end(answer | one, other) == answer | told
