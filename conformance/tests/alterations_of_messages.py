"""Alterations of what section 4 says of inference, heatmaps, streams, jobs and listings."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from conformance.tests.altering import (
    DROP,
    Alteration,
    alteration,
    asks,
    events_of,
    header,
    member,
    not_,
    of_tenant,
    on,
    query,
    renamed,
    says,
    sends,
    status,
    streamed,
)
from conformance.tests.proxy import Alter, Exchange

from camserve_conformance.pictures import picture

INFER, JOBS, JOB = "POST /v1/infer", "POST /v1/jobs", "GET /v1/jobs/[^/]+"
RESULTS = "GET /v1/jobs/[^/]+/results"


def shows(name: str) -> Callable[[Exchange], Any]:
    """Whether the request's image is that picture."""
    return asks("image.bytes", base64.b64encode(picture(name)).decode())


def _is_plain(exchange: Exchange) -> bool:
    return set(exchange.asked) == {"model", "image"}


_STAR = (_is_plain, shows("star.png"))


def _cam(**options: Any) -> Callable[[Exchange], Any]:
    return asks("grad_cam", {"enabled": True, **options})


_INLINE = asks("response.heatmap", "inline")
_URL = asks("response.heatmap", "url")


def _plain(what: str, hits: str, path: str, value: Any) -> Alteration:
    return alteration(what, hits, on(INFER, member(path, value), *_STAR, ok=True))


def _swapped(classes: list[Any]) -> list[Any]:
    return [*classes[:-2], classes[-1], classes[-2]]


_INFER = [
    _plain("a time is text", "infer.shape", "timings_ms.queue", "0"),
    _plain("another model", "infer.model", "model", "other"),
    _plain("the alias instead of the version", "infer.stable", "model_version", "stable"),
    _plain("another labels_version", "infer.labels", "labels_version", "other"),
    _plain("another width", "infer.image_size", "image.width", 1),
    _plain("another media type", "infer.image_type", "image.media_type", "image/x"),
    _plain("another SHA-256", "infer.image_digest", "image.sha256", "0" * 64),
    _plain("a time below 0", "infer.timings", "timings_ms.total", -1),
    _plain("the last classes in another order", "infer.descending", "classes", _swapped),
    _plain("a probability above 1", "infer.probabilities", "classes.0.prob", 1.5),
    _plain("a class is missing", "infer.top_k_default", "classes.-1", DROP),
    _plain("a heatmap that nobody asked for", "infer.no_heatmap", "heatmap", {}),
    _plain("null", "infer.no_nulls", "note", None),
    alteration(
        "a pinned version is not told",
        "infer.pinned",
        on(INFER, member("model_version", "stable"), asks("model_version")),
    ),
    alteration(
        "top_k is not heeded",
        "infer.top_k",
        on(INFER, member("classes", lambda each: each * 2), asks("classify.top_k", 1), ok=True),
    ),
    alteration("top_k 1000 is refused", "infer.top_k_most", on(INFER, status(400), asks("classify.top_k", 1000))),
    alteration(
        "the threshold is not heeded",
        "infer.threshold",
        on(INFER, member("classes", lambda each: [*each, {"prob": 0.01}]), asks("classify.prob_threshold", 0.2)),
    ),
    alteration(
        "empty arrays are left out",
        "infer.empty_arrays",
        on(INFER, member("classes", DROP), asks("classify.prob_threshold", 1)),
    ),
    alteration(
        "unknown fields are refused", "infer.unknown_fields", on(INFER, status(400), asks("camserve_conformance"))
    ),
    alteration("resize is not heeded", "infer.resize", on(INFER, member("heatmap.width", 120), asks("resize"))),
    alteration(
        "storage ids are not taken",
        "infer.storage_id",
        on(INFER, status(404), asks("image.storage_id"), of_tenant("kit"), ok=True),
    ),
    alteration(
        "declared types are not taken",
        "infer.media_type",
        on(INFER, status(415), asks("image.media_type", "image/png")),
    ),
    *(
        alteration(
            f"a receipt's {path} is {value}",
            f"infer.{check}",
            on(INFER, member(path, value), sends("prefer"), asks("classify.top_k", 3)),
        )
        for check, path, value in [
            ("receipt", "estimated_wait_ms", "5"),
            ("receipt_status", "status", "running"),
            ("receipt_counts", "counts.submitted", 2),
        ]
    ),
    alteration(
        "a part `request` is refused", "infer.form_json", on(INFER, status(400), says(rb'name="request".*"top_k": 2'))
    ),
    alteration(
        "dotted fields are refused",
        "infer.form_dotted",
        on(INFER, status(400), says(rb'"classify.top_k"\r\n\r\n3'), not_(says(rb'name="request"'))),
    ),
    alteration(
        "forms that end with the image are refused",
        "infer.form_order",
        on(INFER, status(400), says(rb'"classify.top_k"\r\n\r\n4')),
    ),
    alteration(
        "both ways of options are taken",
        "infer.form_both",
        on(INFER, status(200), says(rb'name="request".*"classify.top_k"')),
    ),
    alteration(
        "options in the query are refused", "infer.raw_query", on(INFER, status(400), query(r".*classify\.top_k=2"))
    ),
    alteration("?request= is refused", "infer.raw_request", on(INFER, status(400), query("request=.*"))),
    alteration(
        "other bytes than the base64's",
        "infer.base64_bytes",
        on(INFER, member("image.sha256", "0" * 64), _is_plain, shows("baseline.jpg")),
    ),
]


def _heatmap(what: str, hits: str, path: str, value: Any, *tests: Any) -> Alteration:
    return alteration(what, hits, on(INFER, member(f"heatmap.{path}", value), *tests, not_(asks("resize")), ok=True))


def _edited(edit: Callable[[bytes], bytes]) -> Callable[[str], str]:
    return lambda text: base64.b64encode(edit(base64.b64decode(text))).decode()


def _unsigned(exchange: Exchange) -> None:
    exchange.content = b"\0\0" + exchange.content[2:]


_DEFAULT = (_cam(), _INLINE)
_LINKED = (_cam(), _URL, not_(sends("idempotency-key")))
_SIZE = {"width": 30, "height": 20}
_METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam")
_COLORMAPS = ("jet", "viridis", "turbo", "inferno", "gray")
_HEATMAP = [
    _heatmap("raw_min is text", "heatmap.shape", "raw_min", "0", *_DEFAULT),
    _heatmap("another type of file", "heatmap.inline_type", "type", "jpeg", *_DEFAULT),
    _heatmap("data that is no PNG", "heatmap.inline_png", "data_b64", "AAAA", *_DEFAULT),
    _heatmap(
        "inline unless asked otherwise", "heatmap.default_placement", "type", "png", _cam(), not_(asks("response"))
    ),
    _heatmap("links without an end", "heatmap.linked", "expires_at", DROP, *_LINKED),
    _heatmap(
        "links to another host",
        "heatmap.link_prefix",
        "url",
        lambda url: url.replace("127.0.0.1", "localhost"),
        *_LINKED,
    ),
    _heatmap("links that have ended", "heatmap.link_expires", "expires_at", "2020-01-01T00:00:00Z", *_LINKED),
    alteration(
        "links to something else",
        "heatmap.link_works",
        on("GET /v1/objects/.*", _unsigned, not_(sends("range")), ok=True),
    ),
    *(
        _heatmap(f"another default: {name}", f"heatmap.default_{name}", name, value, *_DEFAULT)
        for name, value in {
            "format": "gif",
            "colormap": "hot",
            "overlay": True,
            "method": "other",
            "normalization": "0-255",
            "layer": "other",
            "target": "other",
        }.items()
    ),
    _heatmap("another size", "heatmap.default_resolution heatmap.inline_png", "width", 1, *_DEFAULT),
    _heatmap("the word input is not heeded", "heatmap.resolution_word", "width", 1, _cam(resolution="input")),
    _heatmap("sizes are not heeded", "heatmap.resolution_size", "width", 1, _cam(resolution=_SIZE)),
    _heatmap("raw_min above raw_max", "heatmap.raw_range", "raw_min", 1e9, *_DEFAULT),
    _heatmap("targets are not heeded", "heatmap.target", "target", "other", asks("grad_cam.target")),
    _heatmap("layers are not heeded", "heatmap.layer", "layer", "other", asks("grad_cam.layer")),
    _heatmap("overlays are not told", "heatmap.overlay", "overlay", False, _cam(overlay=True)),
    _heatmap("alpha is not heeded", "heatmap.alpha", "data_b64", "AAAA", asks("grad_cam.alpha")),
    *(
        _heatmap(
            f"{option} {value} is not heeded",
            f"heatmap.{option}_{value.replace('+', 'p')}",
            option,
            "other",
            asks(f"grad_cam.{option}", value),
        )
        for option, values in {"method": _METHODS, "colormap": _COLORMAPS}.items()
        for value in values
    ),
    _heatmap("NPY is called PNG", "heatmap.npy_type", "type", "png", _cam(format="npy")),
    _heatmap(
        "NPY of float64",
        "heatmap.npy",
        "data_b64",
        _edited(lambda data: data.replace(b"<f4", b"<f8")),
        _cam(format="npy", resolution=_SIZE),
    ),
    _heatmap(
        "NPY beyond 1",
        "heatmap.npy_values",
        "data_b64",
        _edited(lambda data: data[:-4] + b"\0\0\0\x40"),
        _cam(format="npy", resolution={"width": 20, "height": 15}),
    ),
    _heatmap(
        "NPY of zeros that is not degenerate",
        "heatmap.npy_degenerate",
        "data_b64",
        _edited(lambda data: data[: -4 * 24 * 18] + bytes(4 * 24 * 18)),
        _cam(format="npy", resolution={"width": 24, "height": 18}),
    ),
    _heatmap(
        "4 MiB inline",
        "heatmap.too_large_for_inline",
        "type",
        "npy",
        _cam(format="npy", resolution={"width": 1024, "height": 1024}),
    ),
]

_BATCH = "POST /v1/infer:batch"
_WATCH = "GET /v1/jobs/[^/]+/events"


def _of_three(exchange: Exchange) -> bool:
    return len(exchange.asked.get("inputs", [])) == 3 and 200 <= exchange.status < 300


def _items(change: Callable[[dict[str, Any]], None], name: str) -> Alter:
    def all_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for event in events:
            if event.get("item", {}).get("id") == name:
                change(event["item"])
        return events

    return streamed(all_of)


def _without(name: str) -> Alter:
    return streamed(lambda events: [event for event in events if event.get("item", {}).get("id") != name])


def _is_of_two(exchange: Exchange) -> bool:
    return of_tenant("kit")(exchange) and {event["item"]["id"] for event in events_of(exchange) if "item" in event} == {
        "a",
        "b",
    }


def _untimed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for event in events:
        if "job" in event:
            event["job"]["expires_at"] = "soon"
    return events


def _unsummed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    events[-1]["summary"]["failed"] = 2
    return events


_STREAMS = [
    alteration(
        "an event of another kind",
        "batch.events",
        on(_BATCH, streamed(lambda each: [{"event": "note"}, *each]), _of_three),
    ),
    alteration(
        "something after done",
        "batch.done_last",
        on(_BATCH, streamed(lambda each: [*each, {"event": "status"}]), _of_three),
    ),
    alteration("an item is missing", "batch.items", on(_BATCH, _without("b"), _of_three)),
    alteration(
        "a status is a number",
        "batch.item_shape",
        on(_BATCH, _items(lambda item: item.update(status=1), "a"), _of_three),
    ),
    alteration(
        "another error of an item",
        "batch.broken_item",
        on(_BATCH, _items(lambda item: item["error"].update(code="other"), "broken"), _of_three),
    ),
    alteration("the summary counts otherwise", "batch.summary", on(_BATCH, streamed(_unsummed), _of_three)),
    alteration(
        "events without JSON",
        "batch.sse",
        on(_BATCH, lambda exchange: setattr(exchange, "content", b"data: {\n\n"), sends("accept", ".*event-stream")),
    ),
    alteration("a key has another code", "batch.no_key", on(_BATCH, renamed(), sends("idempotency-key"))),
    alteration(
        "something after a job's done",
        "batch.watch_done_last",
        on(_WATCH, streamed(lambda each: [*each, {"event": "status"}]), _is_of_two),
    ),
    alteration("a job's item is missing", "batch.watch_items", on(_WATCH, _without("b"), _is_of_two)),
    alteration("a job's time is none", "batch.watch_shape", on(_WATCH, streamed(_untimed), _is_of_two)),
    alteration(
        "refusals are streams",
        "batch.refused",
        on(_BATCH, header("content-type", "application/x-ndjson"), asks("model", "camserve-conformance")),
    ),
]

ALTERATIONS: list[Alteration] = [*_INFER, *_HEATMAP, *_STREAMS]
