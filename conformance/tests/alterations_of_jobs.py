"""Alterations of what section 4 says of jobs, listings, models, limits and uploads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from conformance.tests.alterations_of_messages import JOB, JOBS, RESULTS
from conformance.tests.altering import (
    DROP,
    Alteration,
    alteration,
    asks,
    claims,
    has_code,
    header,
    member,
    not_,
    of_tenant,
    on,
    query,
    renamed,
    sends,
    status,
)
from conformance.tests.proxy import Alter, Exchange

Test = Callable[[Exchange], Any]


def _summary(items: int, failed: int) -> Test:
    return lambda exchange: (
        exchange.said.get("result_summary") == {"items": items, "succeeded": items - failed, "failed": failed}
    )


def _asks_three(exchange: Exchange) -> bool:
    return [each.get("id") for each in exchange.asked.get("inputs", [])] == ["a", "b", "c"]


def _asks_id(length: int) -> Test:
    return lambda exchange: [len(each.get("id", "")) for each in exchange.asked.get("inputs", [])] == [length]


def _listed(*names: str) -> Test:
    return lambda exchange: [each["id"] for each in exchange.said.get("items", [])] == [*names]


def _has(path: str, value: Any) -> Test:
    def test(exchange: Exchange) -> bool:
        node = exchange.said
        for name in path.split("."):
            node = node.get(name) if isinstance(node, dict) else None
        return bool(node == value)

    return test


def _again() -> Alter:
    """Refuses the second cancellation of a job."""
    seen: Counter[str] = Counter()

    def count(exchange: Exchange) -> None:
        seen[exchange.path] += 1
        if seen[exchange.path] > 1:
            exchange.status = 409

    return on("DELETE /v1/jobs/.*", count, ok=True)


_TOLD = _has("metadata.order", 7)
_RECEIPTS = [
    alteration(f"a receipt's {path} is {value}", f"jobs.{check}", on(JOBS, member(path, value), _asks_three))
    for check, path, value in [
        ("receipt", "estimated_wait_ms", "5"),
        ("receipt_status", "status", "running"),
        ("receipt_counts", "counts.submitted", 4),
        ("receipt_request_id", "request_id", "other"),
    ]
]
_JOBS = [
    *_RECEIPTS,
    alteration("a job's time is none", "jobs.shape", on(JOB, member("expires_at", "soon"), _TOLD)),
    alteration("a bad item fails the job", "jobs.succeeded", on(JOB, member("status", "failed"), _summary(2, 1))),
    alteration("bad items succeed", "jobs.failed", on(JOB, member("status", "succeeded"), _summary(1, 1))),
    alteration(
        "what failed is not counted", "jobs.summary", on(JOB, member("result_summary.failed", 0), _summary(3, 1))
    ),
    alteration("started_at is missing", "jobs.times", on(JOB, member("started_at", DROP), _TOLD)),
    alteration("another expiry", "jobs.ttl", on(JOB, member("expires_at", "2999-01-01T00:00:00Z"), _TOLD)),
    alteration("ttl_hours 0 is taken", "jobs.ttl_least", on(JOBS, status(202, b"{}"), asks("ttl_hours", 0))),
    alteration("ttl_hours 721 is taken", "jobs.ttl_most", on(JOBS, status(202, b"{}"), asks("ttl_hours", 721))),
    alteration("metadata is altered", "jobs.metadata", on(JOB, member("metadata.nested", DROP), _TOLD)),
    alteration("long metadata are taken", "jobs.metadata_most", on(JOBS, status(202, b"{}"), asks("metadata.text"))),
    alteration("the alias is kept", "jobs.version", on(JOB, member("model_version", "stable"), _TOLD)),
    alteration("results elsewhere", "jobs.results_url", on(JOB, member("results_url", "/v1/results"), _TOLD)),
    alteration("no result", "jobs.result", on(JOB, member("result", DROP), _TOLD)),
    alteration("any job_type is taken", "jobs.job_type", on(JOBS, status(202, b"{}"), asks("job_type"))),
    alteration("long ids are refused", "jobs.longest_id", on(JOBS, status(400), _asks_id(128))),
    alteration("longer ids are taken", "jobs.too_long_id", on(JOBS, status(202, b"{}"), _asks_id(129))),
    alteration("empty ids are taken", "jobs.empty_id", on(JOBS, status(202, b"{}"), _asks_id(0))),
    alteration(
        "options are not heeded",
        "jobs.options",
        on(JOB, member("result.heatmap.type", "png"), _has("result.heatmap.type", "npy")),
    ),
    alteration("a page's size is text", "jobs.results", on(RESULTS, member("page.size", "3"), _listed("0", "1", "2"))),
    alteration(
        "results in another order",
        "jobs.results_order",
        on(RESULTS, member("items.1", lambda each: {**each, "id": "7"}), _listed("0", "1", "2")),
    ),
    alteration(
        "a good result still runs",
        "jobs.good_result",
        on(RESULTS, member("items.0.status", "running"), _listed("0", "1", "2")),
    ),
    alteration(
        "a bad result has no error",
        "jobs.bad_result",
        on(RESULTS, member("items.1.error", DROP), _listed("0", "1", "2")),
    ),
    alteration(
        "what is pending is left out", "jobs.pending", on(RESULTS, member("items.-1", DROP), _listed("a", "b", "c"))
    ),
    alteration(
        "a canceled job runs", "jobs.cancel_body", on("DELETE /v1/jobs/.*", member("status", "running"), ok=True)
    ),
    alteration(
        "a canceled job runs later",
        "jobs.cancel_is_final",
        on(JOB, member("status", "running"), _has("status", "canceled")),
    ),
    Alteration("canceling again is a conflict", frozenset({"jobs.cancel_again"}), _again),
    alteration(
        "unknown results have another code", "jobs.unknown_results", on("GET /v1/jobs/job_0{21}/results", renamed())
    ),
    alteration("another job's id", "jobs.by_id", on(JOB, member("job_id", "other"), _summary(2, 0), of_tenant("kit"))),
]

_LIST = "GET /v1/jobs"
_CURSOR = "limit=1&cursor=.*"
_LISTINGS = [
    alteration("a page's size is text", "listings.shape", on(_LIST, member("page.size", "2"), query("limit=2"))),
    alteration("a page's size is another", "listings.size", on(_LIST, member("page.size", 9), query("limit=3"))),
    alteration(
        "oldest first",
        "listings.newest_first",
        on(_LIST, member("jobs", lambda jobs: jobs[::-1]), query("limit=200"), of_tenant("kit")),
    ),
    alteration(
        "one more than the limit",
        "listings.limit",
        on(_LIST, member("jobs", lambda jobs: [*jobs, jobs[0]]), query("limit=2")),
    ),
    alteration("limit 0 is taken", "listings.limit_least", on(_LIST, status(200), query("limit=0"))),
    alteration("limit 201 is taken", "listings.limit_most", on(_LIST, status(200), query("limit=201"))),
    alteration(
        "a page leaves a job out",
        "listings.exact",
        on(_LIST, member("jobs.-1", DROP), query("limit=2&created_after=.*")),
    ),
    alteration(
        "a cursor is tied to its limit", "listings.other_limit", on(_LIST, status(400), query("limit=2&cursor=.*"))
    ),
    alteration(
        "an altered cursor has another code",
        "listings.altered_cursor",
        on(_LIST, renamed(), query(_CURSOR), of_tenant("kit")),
    ),
    alteration(
        "a cursor of other filters has another code",
        "listings.cursor_of_other_filters",
        on(_LIST, renamed(), query("limit=1&status=.*")),
    ),
    alteration(
        "states are not heeded",
        "listings.by_status",
        on(_LIST, member("jobs.0.status", "failed"), query("status=succeeded")),
    ),
    alteration(
        "models are not heeded", "listings.by_model", on(_LIST, member("jobs.0.model", "other"), query("model=.*"))
    ),
    alteration(
        "an unknown model has jobs",
        "listings.by_other_model",
        on(_LIST, member("jobs", [{}]), query("model=camserve-conformance")),
    ),
    alteration(
        "created_after is not heeded", "listings.by_start", on(_LIST, member("jobs", [{}]), query("created_after=.*"))
    ),
    alteration(
        "created_before is not heeded",
        "listings.by_end",
        on(
            _LIST, member("jobs", [{"job_id": "x", "submitted_at": "2999-01-01T00:00:00Z"}]), query("created_before=.*")
        ),
    ),
    alteration(
        "the last page goes on", "listings.last_page", on(RESULTS, member("page.next_cursor", "x"), query("limit=200"))
    ),
    alteration(
        "the second page is another",
        "listings.result_pages",
        on(RESULTS, member("items.0.id", "x"), query(_CURSOR), ok=True),
    ),
    alteration(
        "another job's cursor has another code",
        "listings.cursor_of_other_results",
        on(RESULTS, renamed(), has_code("cursor.invalid")),
    ),
]

_MODEL = "GET /v1/models/[^/]+"
_STABLE_ONLY = not_(query("view=full"))


def _counter() -> Alter:
    """Counts a call as an image, whatever it is."""
    seen = [0]

    def count(exchange: Exchange) -> None:
        seen[0] += 1
        exchange.say({**exchange.said, "images_per_day": {**exchange.said["images_per_day"], "used": seen[0] + 1}})

    return on("GET /v1/limits", count, of_tenant("kit"), ok=True)


_MODELS = [
    alteration(
        "classes are text", "models.shape", on("GET /v1/models", member("models.0.versions.-1.classes", "10"), ok=True)
    ),
    alteration(
        "another state", "models.states", on("GET /v1/models", member("models.0.versions.-1.state", "new"), ok=True)
    ),
    alteration(
        "another word for golden",
        "models.golden",
        on("GET /v1/models", member("models.0.versions.-1.golden", "yes"), ok=True),
    ),
    alteration(
        "a layer that there is not",
        "models.default_layer",
        on(_MODEL, member("versions.0.default_layer", "other"), _STABLE_ONLY, ok=True),
    ),
    alteration("another model", "models.one", on(_MODEL, member("model", "other"), _STABLE_ONLY, ok=True)),
    alteration(
        "a label is missing",
        "models.full",
        on(
            _MODEL,
            member("versions", lambda each: [{**one, "labels": one["labels"][1:]} for one in each]),
            query("view=full"),
        ),
    ),
    alteration("another mapping", "models.mapping", on("GET /v1/models/[^/]+/labels", member("to", "other"))),
    alteration("a time is text", "limits.limits_shape", on("GET /v1/limits", member("sync_timeout_s", "15"), ok=True)),
    alteration(
        "more is left than the burst",
        "limits.burst",
        on("GET /v1/limits", member("requests_per_second.remaining", 10**8), of_tenant("kit"), ok=True),
    ),
    alteration(
        "the day has ended",
        "limits.resets_at",
        on("GET /v1/limits", member("images_per_day.resets_at", "2020-01-01T00:00:00Z"), ok=True),
    ),
    alteration(
        "images are not counted", "limits.used", on("GET /v1/limits", member("images_per_day.used", 7), ok=True)
    ),
    Alteration("replays are counted", frozenset({"idempotency.not_charged"}), _counter),
    alteration("the rate has another code", "limits.rate", on("GET /v1/limits", renamed(), has_code("rate.exceeded"))),
    alteration(
        "429 without Retry-After",
        "limits.retry_after",
        on("GET /v1/limits", header("retry-after", None), lambda exchange: claims(exchange).get("tenant") == "slow"),
    ),
]

_UPLOADS, _UPLOAD = "POST /v1/uploads", "GET /v1/uploads/[^/]+"


def _both(path: str, value: Any) -> Alter:
    """Alters the upload when it is made and when it is asked for."""
    made = on(_UPLOADS, member(path, value), not_(sends("content-type", "multipart.*")), ok=True)
    asked = on(_UPLOAD, member(path, value), ok=True)

    def alter(exchange: Exchange) -> None:
        made(exchange)
        asked(exchange)

    return alter


def _presigned_is_lost() -> Alter:
    """Does not know what was put to a presigned link."""
    presigned: set[str] = set()

    def alter(exchange: Exchange) -> None:
        if exchange.path == "/v1/uploads:presign":
            presigned.add(str(exchange.said.get("storage_id")))
        elif exchange.verb == "GET" and exchange.path.rpartition("/")[2] in presigned:
            exchange.status = 404

    return alter


_WITH_DIGEST = asks("content_md5")
_OBJECT = "GET /v1/objects/.*"
_STORED = [
    alteration("sizes are numbers", "uploads.shape", _both("size_bytes", int)),
    alteration("another size", "uploads.size", _both("size_bytes", "1")),
    alteration("another digest", "uploads.digest", _both("sha256", "0" * 64)),
    alteration("another width", "uploads.described", _both("width", 1)),
    alteration("an upload that ended before it began", "uploads.expires", _both("expires_at", "2020-01-01T00:00:00Z")),
    alteration("another upload when asked", "uploads.got", on(_UPLOAD, member("media_type", "image/x"), ok=True)),
    alteration(
        "a deleted upload has another code",
        "uploads.deleted",
        on("GET /v1/uploads/img_(?!0000|2222).*", renamed(), of_tenant("kit")),
    ),
    alteration(
        "an answer where there is none",
        "uploads.no_body surface.delete_upload",
        on("DELETE /v1/uploads/.*", status(200, b"{}"), ok=True),
    ),
    alteration(
        "links without headers",
        "uploads.presigned",
        on("POST /v1/uploads:presign", member("headers", DROP), _WITH_DIGEST),
    ),
    alteration(
        "links to another host",
        "uploads.presigned_prefix",
        on(
            "POST /v1/uploads:presign",
            member("upload_url", lambda url: url.replace("127.0.0.1", "localhost")),
            _WITH_DIGEST,
        ),
    ),
    alteration(
        "links with another verb",
        "uploads.presigned_method",
        on("POST /v1/uploads:presign", member("method", "put"), _WITH_DIGEST),
    ),
    Alteration("what was put is lost", frozenset({"uploads.presigned_works"}), _presigned_is_lost),
    alteration(
        "any image is taken",
        "uploads.presigned_other",
        on("PUT /v1/objects/.*", status(201), has_code("image.md5_mismatch")),
    ),
    alteration(
        "an altered link has another code",
        "objects.altered",
        on(_OBJECT, renamed(), has_code("signature.invalid"), query("token=.{40}.*")),
    ),
    alteration(
        "an altered link takes images",
        "objects.altered_put",
        on("PUT /v1/objects/.*", status(400), has_code("signature.invalid")),
    ),
    alteration(
        "any link opens",
        "objects.other_object objects.altered",
        on(_OBJECT, status(200), has_code("signature.invalid"), query("token=.{40}.*")),
    ),
    alteration("objects are open", "objects.no_token", on(_OBJECT, status(200), query(""))),
    alteration(
        "objects are bytes",
        "objects.media_type",
        on(_OBJECT, header("content-type", "application/octet-stream"), not_(sends("range")), ok=True),
    ),
    alteration("parts do not say which", "objects.content_range", on(_OBJECT, header("content-range", None))),
]

ALTERATIONS = [*_JOBS, *_LISTINGS, *_MODELS, *_STORED]
