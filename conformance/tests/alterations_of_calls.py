"""Alterations of what sections 1 to 3, 5 and 6 say: statuses, headers, tokens, tenants, keys and errors."""

from __future__ import annotations

import re
from typing import Any

from conformance.tests.altering import (
    alteration,
    anonymous,
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
    says,
    sends,
    status,
)
from conformance.tests.proxy import Alter, Exchange

_JSON, _RAW, _FORM = (sends("content-type", kind) for kind in ("application/json.*", "image/.*", "multipart/.*"))
_BASIC = sends("authorization", "Basic .*")
ANY_JOB, ANY_UPLOAD, ANY_HOOK = (f"/v1/{noun}/[^/:]+" for noun in ("jobs", "uploads", "webhooks"))
_ZEROS = r"/v1/jobs/job_0{20}"
_NO_RANGE = not_(sends("range"))

# Each success gets another status of success.
_SUCCESSES: list[tuple[str, int, str, tuple[Any, ...]]] = [
    ("GET /v1/health", 203, "surface.health", (not_(sends("origin")),)),
    ("GET /.well-known/jwks.json", 203, "surface.jwks", ()),
    ("GET /v1/models", 203, "surface.models", ()),
    ("GET /v1/models/[^/]+", 203, "surface.model", ()),
    ("GET /v1/models/[^/]+/labels", 203, "surface.labels", ()),
    ("POST /v1/infer", 203, "surface.infer", (_JSON, asks("classify", {"top_k": 1}))),
    ("POST /v1/infer", 203, "surface.infer_upload", (_RAW,)),
    ("POST /v1/infer", 203, "surface.infer_form", (_FORM,)),
    ("POST /v1/infer:batch", 203, "surface.batch", ()),
    ("POST /v1/jobs", 201, "surface.create_job", ()),
    ("GET /v1/jobs", 203, "surface.jobs", ()),
    (f"GET {ANY_JOB}", 203, "surface.job", ()),
    (f"GET {ANY_JOB}/results", 203, "surface.job_results", ()),
    (f"GET {ANY_JOB}/events", 203, "surface.job_events", ()),
    (f"DELETE {ANY_JOB}", 203, "jobs.cancel", ()),
    ("POST /v1/uploads", 200, "surface.upload", (_RAW,)),
    ("POST /v1/uploads", 200, "surface.upload_form", (_FORM,)),
    ("POST /v1/uploads:presign", 200, "surface.presign", ()),
    (f"GET {ANY_UPLOAD}", 203, "surface.get_upload", ()),
    (f"DELETE {ANY_UPLOAD}", 200, "surface.delete_upload", ()),
    ("PUT /v1/objects/.*", 200, "surface.put_object", ()),
    ("GET /v1/objects/.*", 203, "surface.get_object", (_NO_RANGE,)),
    ("GET /v1/objects/.*", 200, "surface.get_object_range", (sends("range"),)),
    ("GET /v1/webhooks", 203, "surface.webhooks", ()),
    ("GET /v1/webhooks/callback-secret", 203, "surface.callback_secret", ()),
    ("GET /v1/limits", 203, "surface.limits surface.limits_any_token", ()),
    ("POST /v1/webhooks", 200, "webhooks.created", ()),
    (r"GET /v1/webhooks/\w+_\w+", 203, "webhooks.got", ()),
    (r"DELETE /v1/webhooks/\w+_\w+", 200, "webhooks.deleted", ()),
    (f"POST {ANY_HOOK}:rotate", 201, "webhooks.rotated", ()),
    (f"GET {ANY_HOOK}/deliveries", 203, "webhooks.listing", ()),
    (f"POST {ANY_HOOK}:test", 200, "deliveries.test_status", ()),
    (f"POST {ANY_HOOK}/deliveries/.*:redeliver", 200, "deliveries.redelivered", ()),
    ("POST /oauth2/token", 201, "auth.issue_basic", (_BASIC,)),
    ("POST /oauth2/token", 201, "auth.issue_form", (not_(_BASIC),)),
    ("GET /v1/openapi.json", 203, "openapi.public", ()),
]


def _with_other_ids(prefix: str) -> Alter:
    """Ids with another sign in them."""

    def change(exchange: Exchange) -> None:
        text = rf"\b{prefix}_(?=\w{{16}})"
        exchange.content = re.sub(text.encode(), f"{prefix}-".encode(), exchange.content)
        for name, value in exchange.headers.items():
            exchange.headers[name] = re.sub(text, f"{prefix}-", value)

    return change


def _echo(exchange: Exchange) -> None:
    exchange.headers["request-id"] = exchange.asked_headers.get("x-request-id", exchange.headers["request-id"])


_SURFACE = [
    alteration("jobs without Location", "surface.create_job_location", on("POST /v1/jobs", header("location", None))),
    alteration("uploads without Location", "surface.upload_location", on("POST /v1/uploads", header("location", None))),
    alteration(
        "batches as JSON",
        "surface.batch",
        on("POST /v1/infer:batch", header("content-type", "application/json"), not_(sends("accept", ".*event.*"))),
    ),
    alteration(
        "batches that never are events",
        "surface.batch_sse batch.sse",
        on("POST /v1/infer:batch", header("content-type", "text/plain"), sends("accept", ".*event-stream")),
    ),
    alteration(
        "events as text", "surface.job_events", on(f"GET {ANY_JOB}/events", header("content-type", "text/plain"))
    ),
    alteration(
        "a job that has ended is forbidden",
        "surface.cancel_ended_job",
        on(f"DELETE {ANY_JOB}", status(403), has_code("job.already_completed")),
    ),
    alteration("an unknown path has another code", "edges.unknown_path", on("GET /v1/camserve-conformance", renamed())),
    alteration("405 has another code", "edges.other_verb", on("PUT /v1/jobs", renamed())),
    alteration("405 without Allow", "edges.allow", on("PUT /v1/jobs", header("allow", None))),
    alteration(
        "405 allows what it refuses", "edges.allow", on("PUT /v1/jobs", header("allow", "GET, POST, PUT, DELETE"))
    ),
    alteration(
        "415 has another code",
        "edges.request_type",
        on("POST /v1/jobs", renamed(), sends("content-type", "text/plain")),
    ),
    alteration(
        "strangers learn of paths",
        "edges.anonymous_unknown_path",
        on("GET /v1/camserve-conformance", status(404), anonymous),
    ),
    alteration("strangers learn of verbs", "edges.anonymous_other_verb", on("PUT /v1/jobs", status(405), anonymous)),
    alteration("strangers learn of types", "edges.anonymous_request_type", on("POST /v1/jobs", status(415), anonymous)),
    *(
        alteration(
            f"a short {noun} id is 400", f"edges.malformed_{name}_id", on(f"GET /v1/{noun}/.*short", status(400))
        )
        for noun, name in {"jobs": "job", "uploads": "storage", "webhooks": "webhook", "objects": "object"}.items()
    ),
    alteration(
        "an upload of unknown length is 400",
        "edges.length_required",
        on("POST /v1/uploads", status(400), has_code("upload.length_required")),
    ),
    alteration(
        "a form that breaks off is stored",
        "edges.closing_boundary",
        on("POST /v1/uploads", status(201, b"{}"), sends("content-type", ".*boundary=b")),
    ),
    alteration("no grpc-web", "edges.grpc_web", on("POST /camserve.*", status(415))),
    alteration("preflights need a token", "edges.preflight", on("OPTIONS /v1/infer", status(401))),
    alteration(
        "every origin is allowed",
        "edges.foreign_origin",
        on("GET /v1/health", header("access-control-allow-origin", "*"), sends("origin")),
    ),
    *(
        alteration(f"ids of another form: {prefix}-…", hits, _with_other_ids(prefix))
        for prefix, hits in {
            "job": "edges.job_ids deliveries.said deliveries.links",
            "img": "edges.storage_ids",
            "obj": "edges.object_ids",
            "webhook": "webhooks.ids",
        }.items()
    ),
    alteration("uptime is text", "health.shape", on("GET /v1/health", member("uptime_s", "1"))),
    alteration("health has another word", "health.status", on("GET /v1/health", member("status", "up"))),
]

_NO_ID = header("request-id", None)
_HEADERS = [
    alteration(
        "models without Request-Id", "headers.request_id", on("GET /v1/models", header("request-id", None), ok=True)
    ),
    alteration(
        "errors without Request-Id",
        "headers.request_id_of_error headers.request_id_in_error",
        on(f"GET {_ZEROS}", header("request-id", None)),
    ),
    alteration(
        "404 of the edge without Request-Id",
        "headers.request_id_of_edge",
        on("GET /v1/camserve-conformance", header("request-id", None)),
    ),
    alteration(
        "401 without Request-Id",
        "headers.request_id_of_anonymous",
        on("GET /v1/models", header("request-id", None), anonymous),
    ),
    *(
        alteration(f"{name} without Request-Id", f"headers.request_id_of_{name}", on(route, _NO_ID, *tests))
        for name, route, *tests in (
            ("405", "PUT /v1/jobs"),
            ("415", "POST /v1/jobs", sends("content-type", "text/plain")),
            ("204", f"DELETE {ANY_UPLOAD}"),
            ("batch", "POST /v1/infer:batch"),
        )
    ),
    alteration(
        "another request_id in the body",
        "headers.request_id_in_body",
        on("POST /v1/infer", member("request_id", "x"), asks("classify", {"top_k": 2}), not_(sends("idempotency-key"))),
    ),
    alteration(
        "another request_id in errors",
        "headers.request_id_in_error",
        on(f"GET {_ZEROS}", member("error.request_id", "x")),
    ),
    alteration("Request-Id is the caller's", "headers.request_id_is_ours", on("GET /v1/models", _echo, ok=True)),
    alteration(
        "new jobs do not say so",
        "headers.replayed_job idempotency.replayed",
        on("POST /v1/jobs", header("idempotency-replayed", None), sends("idempotency-key")),
    ),
    alteration(
        "new uploads do not say so",
        "headers.replayed_upload",
        on("POST /v1/uploads", header("idempotency-replayed", None), sends("idempotency-key")),
    ),
    alteration(
        "new webhooks do not say so",
        "headers.replayed_webhook",
        on("POST /v1/webhooks", header("idempotency-replayed", None), sends("idempotency-key")),
    ),
    alteration(
        "links do not say that they are new",
        "headers.replayed_without_key",
        on("POST /v1/uploads:presign", header("idempotency-replayed", None)),
    ),
    *(
        alteration(
            f"X-RateLimit-{name} is a list",
            f"headers.x_ratelimit_{name}",
            on("GET /v1/jobs", header(f"x-ratelimit-{name}", "10, 10;w=1"), query("limit=2")),
        )
        for name in ("limit", "remaining", "reset")
    ),
    alteration(
        "X-RateLimit-Reset is a time",
        "headers.rate_reset",
        on("GET /v1/jobs", header("x-ratelimit-reset", "1795475251"), query("limit=2")),
    ),
    *(
        alteration(
            f"uploads without X-RateLimit-{name}",
            "headers.rate_of_upload",
            on("POST /v1/uploads", header(f"x-ratelimit-{name}", None)),
        )
        for name in ("limit", "remaining", "reset")
    ),
    alteration(
        "more remains than there is",
        "headers.rate_remaining",
        on("GET /v1/jobs", header("x-ratelimit-remaining", "999999999"), query("limit=2")),
    ),
    alteration(
        "errors tell no rate", "headers.rate_of_error", on(f"GET {_ZEROS}", header("x-ratelimit-remaining", None))
    ),
    alteration(
        "401 without WWW-Authenticate",
        "headers.www_authenticate",
        on("GET /v1/jobs", header("www-authenticate", None), anonymous),
    ),
    alteration(
        "401 for a token that is none is without WWW-Authenticate",
        "headers.www_authenticate_of_invalid",
        on("GET /v1/jobs", header("www-authenticate", None), sends("authorization", "Bearer not.a.token")),
    ),
    alteration(
        "401 for want of a scope is without WWW-Authenticate",
        "headers.www_authenticate_of_scope",
        on("GET /v1/models", header("www-authenticate", None), has_code("auth.scope_insufficient")),
    ),
    alteration(
        "respond-async answers 200", "headers.prefer", on("POST /v1/infer", status(200), asks("image"), sends("prefer"))
    ),
    alteration(
        "Content-MD5 is no length",
        "headers.md5_for_length",
        on("POST /v1/uploads", status(411), sends("content-md5"), sends("transfer-encoding")),
    ),
    alteration(
        "a wrong MD5 of a raw body has another code",
        "headers.md5_of_raw",
        on("POST /v1/uploads", renamed(), _RAW, has_code("image.md5_mismatch")),
    ),
    alteration(
        "a wrong MD5 of a form has another code",
        "headers.md5_of_form",
        on("POST /v1/uploads", renamed(), _FORM, has_code("image.md5_mismatch")),
    ),
    alteration(
        "a wrong MD5 in a message has another code",
        "headers.md5_in_message codes.image_md5_mismatch",
        on("POST /v1/infer", renamed(), has_code("image.md5_mismatch")),
    ),
]


def _alg(exchange: Exchange) -> str:
    head = exchange.tenant_token.partition(".")[0]
    return (
        "none" if exchange.tenant_token.endswith(".") else ("HS256" if "SFMyNTYi" in head or "IUzI1NiI" in head else "")
    )


_FORGED = on("GET /v1/limits", status(403), has_code("auth.invalid_token"))
_KIT_ONLY = (lambda exchange: not _alg(exchange), lambda exchange: exchange.tenant_token != "not.a.token")
_AUTH = [
    alteration(
        "no token has another code",
        "auth.missing_token",
        on("GET /v1/limits", renamed(), anonymous, has_code("auth.missing_token"), query(""), not_(sends("cookie"))),
    ),
    alteration(
        "a token that is none has another code",
        "auth.invalid_token",
        on("GET /v1/limits", renamed(), sends("authorization", "Bearer not.a.token")),
    ),
    alteration(
        "an altered signature is 403",
        "auth.altered_signature",
        on("GET /v1/limits", status(403), has_code("auth.invalid_token"), of_tenant("kit"), *_KIT_ONLY),
    ),
    alteration(
        "altered claims pass",
        "auth.altered_claims",
        on("GET /v1/limits", status(200), of_tenant("camserve-conformance")),
    ),
    alteration(
        "alg none passes",
        "auth.no_algorithm",
        on("GET /v1/limits", status(200), lambda exchange: _alg(exchange) == "none"),
    ),
    alteration(
        "HS256 passes", "auth.symmetric", on("GET /v1/limits", status(200), lambda exchange: _alg(exchange) == "HS256")
    ),
    alteration(
        "an expired token has another code",
        "auth.expired_token",
        on("GET /v1/limits", renamed("auth.invalid_token"), has_code("auth.token_expired")),
    ),
    alteration(
        "want of a scope has another code",
        "auth.scope auth.narrower",
        on("GET /v1/models", renamed("access.denied"), has_code("auth.scope_insufficient")),
    ),
    alteration(
        "one scope is not enough",
        "auth.enough_scope",
        on("GET /v1/jobs", status(401), lambda exchange: claims(exchange).get("scope") == "jobs.read"),
    ),
    alteration(
        "tokens in the query are taken",
        "auth.token_in_query",
        on("GET /v1/limits", status(200), query("access_token=.*")),
    ),
    alteration("cookies are taken", "auth.token_in_cookie", on("GET /v1/limits", status(200), sends("cookie"))),
    alteration(
        "tokens in the body are taken",
        "auth.token_in_body",
        on("POST /v1/webhooks", status(415), says(b"access_token=")),
    ),
    alteration("keys are for HS256", "auth.keys", on("GET /.well-known/jwks.json", member("keys.0.alg", "HS256"))),
    alteration(
        "token_type is mac", "auth.issued", on("POST /oauth2/token", member("token_type", "mac"), not_(_BASIC), ok=True)
    ),
    alteration(
        "issued tokens do not work",
        "auth.issued_works",
        on("POST /oauth2/token", member("access_token", "a.b.c"), _BASIC, not_(says(b"scope=")), ok=True),
    ),
    alteration(
        "tokens are cached", "auth.issued_uncached", on("POST /oauth2/token", header("cache-control", "max-age=60"))
    ),
    *(
        alteration(
            f"{code} has another name",
            f"auth.{check}",
            on(
                "POST /oauth2/token",
                member("error", "other"),
                lambda exchange, code=code: code == exchange.said.get("error"),
            ),
        )
        for check, code in {
            "unknown_client": "invalid_client",
            "other_grant": "unsupported_grant_type",
            "other_scope": "invalid_scope",
        }.items()
    ),
]

ALTERATIONS = [
    *(
        alteration(f"{route}, {hits}: {code}", hits, on(route, status(code), *tests, ok=True))
        for route, code, hits, tests in _SUCCESSES
    ),
    *_SURFACE,
    *_HEADERS,
    *_AUTH,
]
