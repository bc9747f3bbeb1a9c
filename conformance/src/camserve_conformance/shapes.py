"""The shapes of the contract's messages, and how a value is held to one.

A shape is a kind below, a list of one shape, or the members of an object; a member whose name ends in `?` may be
absent. Members that no shape names are welcome, since the contract only grows.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.outcomes import ViolationError

STRING, BOOL, NUMBER, TIME, OBJECT = "a string", "true or false", "a number", "an RFC 3339 time in UTC", "an object"
INT32, INT64, SHA256 = "an int32, as a number", "an int64, as a string", "a SHA-256 in hex"
ID = re.compile(r"[a-z]+_[0-9A-Za-z]{16,40}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_INT32_MAX = 2**31 - 1

ERROR = {"type": STRING, "code": STRING, "message": STRING, "status": INT32, "details?": OBJECT, "request_id": STRING}
PAGE = {"next_cursor?": STRING, "size": INT32}
COUNTS = {"submitted": INT32}
SUMMARY = {"items": INT32, "succeeded": INT32, "failed": INT32}
TIMINGS = {"queue": INT32, "inference": INT32, "total": INT32, "decode": INT32, "cam": INT32, "render": INT32}
IMAGE = {"width": INT32, "height": INT32, "media_type": STRING, "sha256": SHA256}
CLASSES = [{"id": STRING, "label": STRING, "prob": NUMBER}]
HEATMAP = {
    "type": STRING,
    "data_b64?": STRING,
    "url?": STRING,
    "expires_at?": TIME,
    "format": STRING,
    "width": INT32,
    "height": INT32,
    "colormap": STRING,
    "overlay": BOOL,
    "layer": STRING,
    "method": STRING,
    "target": STRING,
    "normalization": STRING,
    "raw_min": NUMBER,
    "raw_max": NUMBER,
    "degenerate": BOOL,
}
INFERENCE = {
    "request_id": STRING,
    "model": STRING,
    "model_version": STRING,
    "labels_version": STRING,
    "calibration_version": STRING,
    "timings_ms": TIMINGS,
    "image": IMAGE,
    "classes": CLASSES,
}
RECEIPT = {"request_id": STRING, "job_id": STRING, "status": STRING, "counts": COUNTS, "estimated_wait_ms": INT32}
JOB = {
    "job_id": STRING,
    "status": STRING,
    "submitted_at": TIME,
    "started_at?": TIME,
    "completed_at?": TIME,
    "expires_at": TIME,
    "model": STRING,
    "model_version": STRING,
    "error?": ERROR,
    "result_summary": SUMMARY,
    "results_url": STRING,
    "metadata?": OBJECT,
}
RESULT = {
    "classes": CLASSES,
    "heatmap?": HEATMAP,
    "timings_ms": TIMINGS,
    "image": IMAGE,
    "model_version": STRING,
}
JOB_ITEM = {"id": STRING, "status": STRING, "error?": ERROR, "result?": RESULT}
VERSION = {
    "version": STRING,
    "state": STRING,
    "aliases": [STRING],
    "labels_version": STRING,
    "calibration_version": STRING,
    "input": {"width": INT32, "height": INT32},
    "layers": [STRING],
    "default_layer": STRING,
    "classes": INT32,
    "deprecation?": OBJECT,
    "golden": STRING,
}
LIMITS = {
    "tenant": STRING,
    "requests_per_second": {"limit": INT32, "burst": INT32, "remaining": INT32},
    "images_per_day": {"limit": INT32, "used": INT32, "resets_at": TIME},
    "concurrency": {"limit": INT32, "in_use": INT32},
    "max_image_bytes": INT64,
    "max_json_bytes": INT64,
    "max_batch_size": INT32,
    "max_side_px": INT32,
    "max_pixels": INT32,
    "max_cam_side_px": INT32,
    "sync_timeout_s": NUMBER,
    "retention_hours": {"default": NUMBER, "max": NUMBER},
}
UPLOAD = {
    "storage_id": STRING,
    "size_bytes": INT64,
    "media_type": STRING,
    "width": INT32,
    "height": INT32,
    "sha256": SHA256,
    "created_at": TIME,
    "expires_at": TIME,
}
PRESIGNED = {"storage_id": STRING, "upload_url": STRING, "method": STRING, "headers": OBJECT, "expires_at": TIME}
WEBHOOK = {
    "webhook_id": STRING,
    "url": STRING,
    "events": [STRING],
    "created_at": TIME,
    "disabled_at?": TIME,
    "secret?": STRING,
}
DELIVERY = {
    "event_id": STRING,
    "event": STRING,
    "job_id": STRING,
    "status": STRING,
    "attempts": INT32,
    "last_status?": INT32,
    "next_attempt_at?": TIME,
}


def expect_shape(answer: Answer, value: Any, shape: Any, where: str = "the body") -> None:
    """Raises ViolationError with the first thing in which a value is not of a shape."""
    problem = _problem(value, shape, where)
    if problem:
        raise ViolationError(problem, answer)


def _problem(value: Any, shape: Any, where: str) -> str:
    if isinstance(shape, str):
        return "" if _is(value, shape) else f"{where} is {value!r:.80}, not {shape}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where} is {value!r:.80}, not an array"
        found = (_problem(each, shape[0], f"{where}[{place}]") for place, each in enumerate(value))
        return next((problem for problem in found if problem), "")
    if not isinstance(value, dict):
        return f"{where} is {value!r:.80}, not an object"
    for name, inner in shape.items():
        plain = name.removesuffix("?")
        if plain not in value:
            if plain == name:
                return f"{where} has no member {plain!r}"
        elif problem := _problem(value[plain], inner, f"{where}.{plain}"):
            return problem
    return ""


def _is(value: Any, kind: str) -> bool:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case "a string":
            return isinstance(value, str)
        case "true or false":
            return isinstance(value, bool)
        case "a number":
            return is_integer or isinstance(value, float)
        case "an object":
            return isinstance(value, dict)
        case "an int32, as a number":
            return is_integer and -_INT32_MAX <= value <= _INT32_MAX
        case "an int64, as a string":
            return isinstance(value, str) and re.fullmatch(r"-?\d+", value) is not None
        case "a SHA-256 in hex":
            return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None
        case _:
            return isinstance(value, str) and _TIME.fullmatch(value) is not None


def moment(value: str) -> datetime:
    """Returns an RFC 3339 time; raises ValueError when it is none."""
    return datetime.fromisoformat(value)
