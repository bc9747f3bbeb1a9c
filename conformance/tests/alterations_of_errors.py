"""Alterations of what sections 6 and 7 say, and of the OpenAPI document."""

from __future__ import annotations

from typing import Any

from conformance.tests.alterations_of_messages import INFER, JOBS, shows
from conformance.tests.altering import (
    DROP,
    Alteration,
    alteration,
    asks,
    has_code,
    header,
    member,
    on,
    query,
    renamed,
    says,
    sends,
    status,
)
from conformance.tests.proxy import Alter

_MARK = "camserveconformancemark"
_MAKERS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "server": ("GET /v1/jobs/job_1{20}", ()),
    "transcoder": ("POST /v1/jobs", (says(_MARK.encode()),)),
    "jwt": ("GET /v1/jobs", (sends("authorization", f".*{_MARK}"),)),
    "router": (f"GET /v1/{_MARK}", ()),
}
_CHANGES: dict[str, tuple[str, Alter]] = {
    "shape": ("has no request_id", member("error.request_id", DROP)),
    "media_type": ("names a character set", header("content-type", "application/json; charset=utf-8")),
    "small": ("is long", member("error.message", "x" * 3000)),
    "status": ("says another status", member("error.status", 499)),
    "code": ("has another type", member("error.type", "other")),
}
_ERRORS = [
    *(
        alteration(f"an error of the {maker} {what}", f"errors.{maker}_{name}", on(route, change, *tests))
        for maker, (route, tests) in _MAKERS.items()
        for name, (what, change) in _CHANGES.items()
    ),
    alteration("errors echo paths", "errors.no_echo", on(f"GET /v1/{_MARK}", member("error.message", _MARK))),
    alteration(
        "errors echo values",
        "errors.no_echoed_value",
        on(INFER, member("error.message", _MARK), asks("grad_cam.colormap", _MARK)),
    ),
    alteration("successes have an error", "errors.no_error", on("GET /v1/limits", member("error", {}), ok=True)),
    alteration(
        "a bad parameter has another code",
        "errors.transcoder_on_get",
        on("GET /v1/jobs", renamed("json.malformed"), query("limit=many")),
    ),
    alteration(
        "bad JSON has another code",
        "errors.transcoder_on_post",
        on(JOBS, renamed("param.invalid"), asks("model", ["a list"])),
    ),
    alteration("errors without a message", "errors.message", on("GET /v1/jobs/job_1{20}", member("error.message", ""))),
]

# What carries a code, and the checks that meet it there.
_CODES = [
    ("param.invalid", INFER, "codes.param_invalid"),
    (
        "param.out_of_range",
        INFER,
        "codes.param_out_of_range codes.top_k_least codes.threshold_most codes.resolution_most codes.alpha_most",
    ),
    ("param.layer_not_found", INFER, "codes.param_layer_not_found"),
    ("model.version_not_found", INFER, "codes.model_version_not_found"),
    ("image.source_required", INFER, "codes.image_source_required"),
    ("image.invalid_format", INFER, "codes.image_invalid_format"),
    ("image.decoding_failed", INFER, "codes.image_decoding_failed"),
    ("image.animated_not_supported", INFER, "codes.image_animated_not_supported codes.tiff_of_several_pages"),
    ("media.unsupported", INFER, "codes.media_unsupported codes.webp codes.svg codes.pdf"),
    ("image.aspect_ratio", INFER, "codes.image_aspect_ratio"),
    ("image.too_large", INFER, "codes.image_too_large"),
    ("image.base64_invalid", INFER, "codes.image_base64_invalid"),
    ("media.mismatch", INFER, "codes.media_mismatch"),
    ("media.mismatch", "POST /v1/uploads", "codes.mismatch_of_upload codes.mismatch_of_name"),
    ("image.url_not_allowed", INFER, "codes.image_url_not_allowed codes.private_address codes.link_local"),
    ("image.fetch_failed", INFER, "codes.image_fetch_failed"),
    ("webhook.url_not_allowed", "POST /v1/webhooks", "codes.webhook_url_not_allowed codes.private_webhook"),
    ("webhook.url_not_allowed", JOBS, "codes.callback_not_allowed"),
    ("batch.empty", JOBS, "codes.batch_empty"),
    ("batch.empty", "POST /v1/infer:batch", "codes.empty_batch"),
    ("batch.duplicate_id", JOBS, "codes.batch_duplicate_id"),
    ("batch.too_large", JOBS, "codes.batch_too_large"),
    ("model.not_found", INFER, "codes.model_not_found"),
    ("model.not_found", "GET /v1/models/.*", "codes.model_not_told"),
    ("job.not_found", "GET /v1/jobs/job_2{20}", "codes.job_not_found"),
    ("upload.not_found", "GET /v1/uploads/img_2{20}", "codes.upload_not_found"),
    ("webhook.not_found", "GET /v1/webhooks/wh_2{20}", "codes.webhook_not_found"),
    ("upload.too_large", "POST /v1/uploads:presign", "codes.upload_too_large"),
    ("body.too_large", JOBS, "codes.body_too_large"),
]
# Forms are refused with codes too, which is not what these checks are about.
_AS_JSON = {INFER: (asks("model"),)}
_REFUSALS = [
    *(
        alteration(
            f"{code} has another status ({hits})",
            hits,
            on(route, status(418), has_code(code), *_AS_JSON.get(route, ())),
        )
        for code, route, hits in _CODES
    ),
    alteration(
        "an unknown image has another code",
        "codes.image_not_uploaded",
        on(INFER, renamed(), asks("image.storage_id", "img_" + "2" * 20)),
    ),
    alteration(
        "a cursor that is none has another code",
        "codes.cursor_invalid",
        on("GET /v1/jobs", renamed(), query("cursor=.*")),
    ),
    alteration(
        "two sources are taken",
        "codes.several_sources",
        on(INFER, status(200), asks("image.storage_id"), asks("image.bytes")),
    ),
    alteration(
        "limits are not told",
        "codes.limit_details",
        on("POST /v1/uploads:presign", member("error.details", DROP), has_code("upload.too_large")),
    ),
]

_ALIKE = [
    "baseline.jpg",
    "progressive.jpg",
    "cmyk.jpg",
    "several.mpo.jpg",
    "palette.png",
    "deep.png",
    "strips.tif",
    "tiles.tif",
    "deep.tif",
    "pyramid.tif",
    "star.bmp",
]
_OTHERWISE = ["grey.png", "bilevel.png", "deep_grey.png", "float.tif", "alpha.png"]


def _image(what: str, check: str, name: str, change: Alter) -> Alteration:
    return alteration(
        f"{name} {what}", f"images.{check}", on(INFER, change, shows(name), lambda exchange: len(exchange.asked) == 2)
    )


def _stem(name: str) -> str:
    return name.replace(".", "_")


_IMAGES = [
    *(_image("is refused", f"{_stem(name)}_taken", name, status(422)) for name in [*_ALIKE, *_OTHERWISE]),
    *(_image("is another class", f"{_stem(name)}_alike", name, member("classes.0.id", "other")) for name in _ALIKE),
    *(
        _image("is of another type", f"{_stem(name)}_sniffed", name, member("image.media_type", "other"))
        for name in _ALIKE
    ),
    _image("is truncated", "deep_grey", "deep_grey.png", member("classes.0.id", "other")),
    _image("is truncated", "floating", "float.tif", member("classes.0.id", "other")),
    _image("lies", "orientation", "turned.jpg", member("image.width", 90)),
]


def _unscoped(paths: dict[str, Any]) -> dict[str, Any]:
    verbs = paths["/v1/jobs"]
    return {**paths, "/v1/jobs": {**verbs, "get": {**verbs["get"], "security": []}}}


def _first_route(document_paths: dict[str, Any]) -> dict[str, Any]:
    return {path: verbs for path, verbs in document_paths.items() if path != "/v1/limits"}


_OPENAPI = [
    alteration("OpenAPI 3.0", "openapi.version", on("GET /v1/openapi.json", member("openapi", "3.0.3"))),
    alteration("a route is not described", "openapi.routes", on("GET /v1/openapi.json", member("paths", _first_route))),
    alteration("a scope is not told", "openapi.scopes", on("GET /v1/openapi.json", member("paths", _unscoped))),
]

ALTERATIONS = [*_ERRORS, *_REFUSALS, *_IMAGES, *_OPENAPI]
