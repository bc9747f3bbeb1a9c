"""Alterations of what sections 4 and 5 say of webhooks, their events and idempotency keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from conformance.tests.alterations_of_messages import INFER, JOBS
from conformance.tests.altering import (
    DROP,
    Alteration,
    alteration,
    asks,
    has_code,
    header,
    member,
    of_tenant,
    on,
    renamed,
    sends,
    status,
)
from conformance.tests.proxy import Alter, Exchange

_HOOKS = "POST /v1/webhooks"
_HOOK = r"GET /v1/webhooks/(?!callback)\w+"
_KIT = of_tenant("kit")


def _to(ending: str) -> Callable[[Exchange], Any]:
    return lambda exchange: str(exchange.said.get("url", "")).endswith(ending)


def _old_secret() -> Alter:
    """Rotates to the secret that there was."""
    secrets: dict[str, str] = {}

    def alter(exchange: Exchange) -> None:
        document = exchange.said
        if exchange.verb == "POST" and exchange.path == "/v1/webhooks" and "secret" in document:
            secrets[document["webhook_id"]] = document["secret"]
        elif exchange.path.endswith(":rotate") and "secret" in document:
            exchange.say({**document, "secret": secrets[document["webhook_id"]]})

    return alter


_WEBHOOKS = [
    alteration("a webhook's time is none", "webhooks.shape", on(_HOOKS, member("created_at", "now"), ok=True)),
    alteration("another url", "webhooks.described", on(_HOOKS, member("url", "https://x"), _to("/described"))),
    alteration("a short secret", "webhooks.secret", on(_HOOKS, member("secret", "whsec_AAAA"), _to("/quiet"))),
    alteration("secrets are told again", "webhooks.secret_once", on(_HOOK, member("secret", "x"), ok=True)),
    alteration(
        "secrets are listed",
        "webhooks.secret_not_listed",
        on("GET /v1/webhooks", member("webhooks.0.secret", "x"), ok=True),
    ),
    alteration("nothing is listed", "webhooks.listed", on("GET /v1/webhooks", member("webhooks", []), _KIT)),
    alteration(
        "a deleted webhook has another code",
        "webhooks.gone",
        on(r"GET /v1/webhooks/webhook_\w+", renamed(), _KIT, has_code("webhook.not_found")),
    ),
    Alteration("rotation changes nothing", frozenset({"webhooks.new_secret"}), _old_secret),
    alteration(
        "a short callback secret",
        "webhooks.callback_secret deliveries.callback",
        on("GET /v1/webhooks/callback-secret", member("secret", "whsec_AAAA"), _KIT),
    ),
    alteration(
        "any event is taken",
        "webhooks.other_event",
        on(_HOOKS, status(201, b"{}"), asks("events", ["job.camserve_conformance"])),
    ),
    alteration(
        "no events are some", "webhooks.all_events", on(_HOOKS, member("events", ["job.failed"]), asks("events", []))
    ),
]

_LIST = r"GET /v1/webhooks/\w+/deliveries"


def _resent(change: Callable[[Exchange], None]) -> Callable[[], Alter]:
    """Changes what comes to a path for the second time."""

    def make() -> Alter:
        seen: set[str] = set()

        def alter(exchange: Exchange) -> None:
            if exchange.path in seen:
                change(exchange)
            seen.add(exchange.path)

        return alter

    return make


def _event(what: str, hits: str, change: Alter, *tests: Callable[[Exchange], Any]) -> Alteration:
    return alteration(what, hits, on("POST /.*", change, *tests), of="events")


def _asked(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Alter:
    def alter(exchange: Exchange) -> None:
        exchange.asked_body = json.dumps(change(exchange.asked)).encode()
        exchange.asked_headers["content-length"] = str(len(exchange.asked_body))

    return alter


def _sent(name: str, value: str) -> Alter:
    return lambda exchange: exchange.asked_headers.update({name: value})


def _put(exchange: Exchange) -> None:
    exchange.verb = "PUT"


_OF_JOB = asks("event", "job.succeeded")
_OF_TEST = asks("event", "webhook.test")
# A body that was altered is not the one that was signed.
_DELIVERIES = [
    _event("events are PUT", "deliveries.is_post", _put, _OF_JOB),
    _event(
        "events without metadata",
        "deliveries.body deliveries.callback",
        _asked(lambda said: {name: said[name] for name in said if name != "metadata"}),
        _OF_JOB,
    ),
    _event(
        "events count otherwise",
        "deliveries.said deliveries.callback",
        _asked(lambda said: {**said, "items_failed": 9}),
        _OF_JOB,
    ),
    _event(
        "two links",
        "deliveries.links deliveries.callback",
        _asked(lambda said: {**said, "link_to_results": "https://x"}),
        _OF_JOB,
    ),
    _event(
        "events with classes",
        "deliveries.no_data deliveries.callback",
        _asked(lambda said: {**said, "classes": []}),
        _OF_JOB,
    ),
    _event(
        "times of long ago", "deliveries.timestamp deliveries.callback", _sent("x-timestamp", "1000000000"), _OF_JOB
    ),
    _event("ids of another form", "deliveries.event_id deliveries.callback", _sent("x-event-id", "event"), _OF_JOB),
    _event("callbacks with another signature", "deliveries.callback", _sent("x-signature", "sha256=00"), _OF_JOB),
    _event(
        "events with another signature",
        "deliveries.signature deliveries.two_signatures",
        _sent("x-signature", "sha256=00"),
        _OF_TEST,
    ),
    _event(
        "events with another standard signature", "deliveries.standard", _sent("webhook-signature", "v1,AAAA"), _OF_TEST
    ),
    _event(
        "one signature while a secret rotates",
        "deliveries.two_signatures",
        lambda exchange: exchange.asked_headers.update(
            {"x-signature": exchange.asked_headers["x-signature"].split(",")[0]}
        ),
        _OF_TEST,
    ),
    alteration("attempts are text", "deliveries.delivery", on(_LIST, member("page.size", "1"), ok=True)),
    alteration(
        "success is dead",
        "deliveries.success",
        on(_LIST, member("deliveries.0.status", "dead"), lambda exchange: b'"delivered"' in exchange.content),
    ),
    alteration(
        "deliveries of another event",
        "deliveries.delivery_id",
        on(_LIST, member("deliveries.0.event_id", "evt_x"), lambda exchange: b'"delivered"' in exchange.content),
    ),
    alteration(
        "a redirect is success",
        "deliveries.redirect",
        on(_LIST, member("deliveries.0.status", "delivered"), lambda exchange: b"302" in exchange.content),
    ),
    alteration("410 disables nothing", "deliveries.disabled", on(_HOOK, member("disabled_at", DROP))),
    alteration(
        "Retry-After is not heeded",
        "deliveries.retry_after",
        on(
            _LIST,
            member("deliveries.0.next_attempt_at", "2020-01-01T00:00:00Z"),
            lambda exchange: b"503" in exchange.content,
        ),
    ),
    Alteration(
        "another id on the second attempt",
        frozenset({"deliveries.same_id"}),
        _resent(_sent("x-event-id", "evt_0000000000000000")),
        "events",
    ),
    Alteration(
        "another body on the second attempt",
        frozenset({"deliveries.same_body"}),
        _resent(_asked(lambda said: {**said, "again": True})),
        "events",
    ),
]


def _replays(exchange: Exchange) -> bool:
    return exchange.headers.get("idempotency-replayed") == "true"


def _own_id(exchange: Exchange) -> None:
    exchange.headers["request-id"] = exchange.said["request_id"]


def _new_id(exchange: Exchange) -> None:
    exchange.say({**exchange.said, "request_id": exchange.headers["request-id"]})


def _afresh(exchange: Exchange) -> None:
    is_ours = exchange.asked_headers.get("idempotency-key", "").startswith("conformance-")
    if is_ours and (exchange.verb, exchange.path) == ("POST", "/v1/jobs"):
        del exchange.asked_headers["idempotency-key"]


def _keyless(exchange: Exchange) -> None:
    exchange.asked_headers.pop("idempotency-key", None)


_NEW = header("idempotency-replayed", "false")
_JSON, _RAW, _FORM = (sends("content-type", kind) for kind in ("application/json.*", "image/.*", "multipart/.*"))
_IDEMPOTENCY = [
    alteration("a replay has another status", "idempotency.same_status", on(JOBS, status(200), _replays)),
    alteration(
        "a replay has another body", "idempotency.same_body", on(JOBS, member("estimated_wait_ms", -1), _replays)
    ),
    alteration("a replay does not say so", "idempotency.replayed", on(JOBS, _NEW, _replays)),
    alteration("a replay without Location", "idempotency.same_headers", on(JOBS, header("location", None), _replays)),
    alteration("a replay has the first Request-Id", "idempotency.new_request_id", on(JOBS, _own_id, _replays)),
    alteration(
        "a replay has a new request_id",
        "idempotency.first_request_id idempotency.same_body",
        on(JOBS, _new_id, _replays),
    ),
    alteration(
        "replays of jobs are answered afresh",
        "idempotency.same_body idempotency.replayed idempotency.same_headers idempotency.first_request_id"
        " idempotency.made_once idempotency.key_reused idempotency.at_once",
        _afresh,
        of="requests",
    ),
    alteration(
        "a replay of Infer does not say so",
        "idempotency.infer",
        on(INFER, _NEW, _replays, asks("classify.top_k", 5), ok=True),
    ),
    alteration(
        "a replay of an upload is another",
        "idempotency.upload",
        on("POST /v1/uploads", member("storage_id", "x"), _replays),
    ),
    *(
        alteration(f"keys are lost: {name}", f"idempotency.{name}", on(f"POST {route}", _keyless), of="requests")
        for name, route in {
            "presign": "/v1/uploads:presign",
            "webhook": "/v1/webhooks",
            "rotation": "/v1/webhooks/[^/]+:rotate",
            "test_event": "/v1/webhooks/[^/]+:test",
        }.items()
    ),
    alteration(
        "links in replays do not work",
        "idempotency.fresh_links",
        on(INFER, member("heatmap.url", lambda url: url[:-5] + "AAAAA"), _replays, asks("grad_cam")),
    ),
    alteration(
        "a key used again has another code",
        "idempotency.key_reused",
        on(JOBS, renamed(), has_code("idempotency.key_reused")),
    ),
    alteration(
        "another image has another code",
        "idempotency.other_image",
        on(INFER, renamed(), has_code("idempotency.key_reused")),
    ),
    alteration(
        "keys are of all operations",
        "idempotency.other_operation",
        on("POST /v1/uploads", status(422), sends("idempotency-key"), ok=True),
    ),
    alteration("another boundary is another request", "idempotency.other_boundary", on(INFER, _NEW, _replays, _FORM)),
    alteration(
        "another order is another request",
        "idempotency.other_order",
        on(INFER, _NEW, _replays, asks("classify.top_k", 2)),
    ),
    alteration("InferUpload is another operation", "idempotency.one_operation", on(INFER, _NEW, _replays, _RAW)),
    alteration(
        "refusals are stored",
        "idempotency.refusal_not_stored",
        on(INFER, status(400), sends("idempotency-key"), asks("classify.top_k", 3)),
    ),
    alteration(
        "broken images are not stored",
        "idempotency.broken_image_stored",
        on(INFER, _NEW, _replays, has_code("image.decoding_failed")),
    ),
    alteration(
        "a long key has another code",
        "idempotency.key_too_long",
        on(JOBS, renamed(), sends("idempotency-key", "x{256}")),
    ),
    alteration(
        "a key with a blank has another code",
        "idempotency.key_with_blank",
        on(JOBS, renamed(), sends("idempotency-key", "a b")),
    ),
    alteration(
        "keys of 255 are refused", "idempotency.longest_key", on(JOBS, status(400), sends("idempotency-key", ".{255}"))
    ),
    alteration(
        "GET is replayed",
        "idempotency.on_get",
        on("GET /v1/jobs", header("idempotency-replayed", "true"), sends("idempotency-key")),
    ),
    alteration(
        "DELETE takes no key",
        "idempotency.on_delete",
        on("DELETE /v1/uploads/.*", status(400), sends("idempotency-key")),
    ),
    alteration(
        "tokens are replayed",
        "idempotency.on_token",
        on("POST /oauth2/token", header("idempotency-replayed", "true"), sends("idempotency-key")),
    ),
]

ALTERATIONS = [*_WEBHOOKS, *_DELIVERIES, *_IDEMPOTENCY]
