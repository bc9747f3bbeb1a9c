"""The error catalogue: one exception type, one row per reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Every code a caller can receive; the value is `error.code` on the wire."""

    JSON_MALFORMED = "json.malformed"
    PARAM_INVALID = "param.invalid"
    PARAM_OUT_OF_RANGE = "param.out_of_range"
    PARAM_LAYER_NOT_FOUND = "param.layer_not_found"
    IMAGE_SOURCE_REQUIRED = "image.source_required"
    IMAGE_INVALID_FORMAT = "image.invalid_format"
    IMAGE_BASE64_INVALID = "image.base64_invalid"
    IMAGE_MD5_MISMATCH = "image.md5_mismatch"
    IMAGE_TOO_LARGE = "image.too_large"
    IMAGE_ASPECT_RATIO = "image.aspect_ratio"
    BATCH_EMPTY = "batch.empty"
    BATCH_DUPLICATE_ID = "batch.duplicate_id"
    AUTH_MISSING_TOKEN = "auth.missing_token"
    AUTH_INVALID_TOKEN = "auth.invalid_token"
    AUTH_TOKEN_EXPIRED = "auth.token_expired"
    AUTH_SCOPE_INSUFFICIENT = "auth.scope_insufficient"
    ACCESS_DENIED = "access.denied"
    SIGNATURE_INVALID = "signature.invalid"
    SIGNATURE_EXPIRED = "signature.expired"
    ROUTE_NOT_FOUND = "route.not_found"
    MODEL_NOT_FOUND = "model.not_found"
    MODEL_VERSION_NOT_FOUND = "model.version_not_found"
    OBJECT_NOT_FOUND = "object.not_found"
    METHOD_NOT_ALLOWED = "method.not_allowed"
    UPLOAD_LENGTH_REQUIRED = "upload.length_required"
    UPLOAD_TOO_LARGE = "upload.too_large"
    BATCH_TOO_LARGE = "batch.too_large"
    BODY_TOO_LARGE = "body.too_large"
    MEDIA_UNSUPPORTED = "media.unsupported"
    MEDIA_MISMATCH = "media.mismatch"
    IMAGE_DECODING_FAILED = "image.decoding_failed"
    IMAGE_ANIMATED_NOT_SUPPORTED = "image.animated_not_supported"
    IMAGE_REJECTED = "image.rejected"
    CLIENT_CLOSED = "client.closed"
    INTERNAL = "internal"
    UPSTREAM_FAILED = "upstream.failed"
    SERVICE_OVERLOADED = "service.overloaded"
    MODEL_UNAVAILABLE = "model.unavailable"
    CIRCUIT_OPEN = "circuit.open"
    STORE_UNAVAILABLE = "store.unavailable"
    SERVICE_DRAINING = "service.draining"
    TIMEOUT_EXCEEDED = "timeout.exceeded"
    IMAGE_URL_NOT_ALLOWED = "image.url_not_allowed"
    IMAGE_FETCH_FAILED = "image.fetch_failed"
    IDEMPOTENCY_KEY_INVALID = "idempotency.key_invalid"
    IDEMPOTENCY_IN_PROGRESS = "idempotency.in_progress"
    IDEMPOTENCY_KEY_REUSED = "idempotency.key_reused"
    JOB_NOT_FOUND = "job.not_found"
    JOB_RESULTS_EXPIRED = "job.results_expired"
    JOB_ALREADY_COMPLETED = "job.already_completed"
    CURSOR_INVALID = "cursor.invalid"
    UPLOAD_NOT_FOUND = "upload.not_found"
    UPLOAD_OFFSET_CONFLICT = "upload.offset_conflict"
    UPLOAD_PROTOCOL_UNSUPPORTED = "upload.protocol_unsupported"
    RESOURCE_VERSION_CONFLICT = "resource.version_conflict"
    WEBHOOK_NOT_FOUND = "webhook.not_found"
    WEBHOOK_URL_NOT_ALLOWED = "webhook.url_not_allowed"
    RATE_EXCEEDED = "rate.exceeded"
    QUOTA_EXCEEDED = "quota.exceeded"
    CONCURRENCY_EXCEEDED = "concurrency.exceeded"
    PLAN_NOT_FOUND = "plan.not_found"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a reason becomes: REST type and status, gRPC code by name, the sentence, the retry hint."""

    type: str
    status: int
    grpc: str
    message: str
    retry_after_s: int | None = None


_VALIDATION = ("validation_error", 400, "INVALID_ARGUMENT")
_AUTH = ("auth_error", 401, "UNAUTHENTICATED")
_FORBIDDEN = ("authorization_error", 403, "PERMISSION_DENIED")
_NOT_FOUND = ("not_found", 404, "NOT_FOUND")
_LIMIT = ("limit_exceeded", 413, "OUT_OF_RANGE")
_MEDIA = ("media_type_unsupported", 415, "INVALID_ARGUMENT")
_UNPROCESSABLE = ("unprocessable", 422, "FAILED_PRECONDITION")
_RATE = ("rate_limited", 429, "RESOURCE_EXHAUSTED")
_UNAVAILABLE = ("service_unavailable", 503, "UNAVAILABLE")

CATALOGUE: dict[Reason, Entry] = {
    Reason.JSON_MALFORMED: Entry(
        *_VALIDATION, "The body is not valid JSON for this request, or a name or value of its query is not."
    ),
    Reason.PARAM_INVALID: Entry(*_VALIDATION, "A parameter is not valid."),
    Reason.PARAM_OUT_OF_RANGE: Entry(*_VALIDATION, "A parameter is outside its range."),
    Reason.PARAM_LAYER_NOT_FOUND: Entry(*_VALIDATION, "The model has no such layer for a heatmap."),
    Reason.IMAGE_SOURCE_REQUIRED: Entry(*_VALIDATION, "Exactly one image source is required."),
    Reason.IMAGE_INVALID_FORMAT: Entry(*_VALIDATION, "The bytes are no image format known here."),
    Reason.IMAGE_BASE64_INVALID: Entry(*_VALIDATION, "The image is not valid base64."),
    Reason.IMAGE_MD5_MISMATCH: Entry(*_VALIDATION, "The image does not have the declared MD5."),
    Reason.IMAGE_TOO_LARGE: Entry(*_VALIDATION, "The image has too many pixels."),
    Reason.IMAGE_ASPECT_RATIO: Entry(*_VALIDATION, "The image is too long for its width."),
    Reason.BATCH_EMPTY: Entry(*_VALIDATION, "The batch has no inputs."),
    Reason.BATCH_DUPLICATE_ID: Entry(*_VALIDATION, "Two inputs of the batch have one id."),
    Reason.AUTH_MISSING_TOKEN: Entry(*_AUTH, "A bearer token is required."),
    Reason.AUTH_INVALID_TOKEN: Entry(*_AUTH, "The token is not valid."),
    Reason.AUTH_TOKEN_EXPIRED: Entry(*_AUTH, "The token has expired."),
    Reason.AUTH_SCOPE_INSUFFICIENT: Entry(
        "auth_error", 401, "PERMISSION_DENIED", "The token lacks the scope of this call."
    ),
    Reason.ACCESS_DENIED: Entry(*_FORBIDDEN, "Access is denied."),
    Reason.SIGNATURE_INVALID: Entry(*_FORBIDDEN, "The link's signature is not valid."),
    Reason.SIGNATURE_EXPIRED: Entry(*_FORBIDDEN, "The link has expired."),
    Reason.ROUTE_NOT_FOUND: Entry(*_NOT_FOUND, "There is no such route."),
    Reason.MODEL_NOT_FOUND: Entry(*_NOT_FOUND, "There is no such model."),
    Reason.MODEL_VERSION_NOT_FOUND: Entry(*_NOT_FOUND, "The model has no such version."),
    Reason.OBJECT_NOT_FOUND: Entry(*_NOT_FOUND, "There is no such object."),
    Reason.METHOD_NOT_ALLOWED: Entry("validation_error", 405, "UNIMPLEMENTED", "The route does not take this method."),
    Reason.UPLOAD_LENGTH_REQUIRED: Entry(
        "validation_error", 411, "INVALID_ARGUMENT", "An upload must declare its length or its MD5."
    ),
    Reason.UPLOAD_TOO_LARGE: Entry(*_LIMIT, "The image has more bytes than the limit."),
    Reason.BATCH_TOO_LARGE: Entry(*_LIMIT, "The batch has more inputs than the limit."),
    Reason.BODY_TOO_LARGE: Entry(*_LIMIT, "The request body is larger than the limit."),
    Reason.MEDIA_UNSUPPORTED: Entry(
        *_MEDIA,
        "The media type is not supported: images are JPEG, PNG, TIFF or BMP, requests JSON or a form.",
    ),
    Reason.MEDIA_MISMATCH: Entry(*_MEDIA, "The bytes are not of the declared media type."),
    Reason.IMAGE_DECODING_FAILED: Entry(*_UNPROCESSABLE, "The image cannot be decoded."),
    Reason.IMAGE_ANIMATED_NOT_SUPPORTED: Entry(*_UNPROCESSABLE, "Animated and multi-page images are not supported."),
    Reason.IMAGE_REJECTED: Entry(*_UNPROCESSABLE, "The image was rejected as unsafe to decode."),
    Reason.CLIENT_CLOSED: Entry("client_closed", 499, "CANCELLED", "The caller left."),
    Reason.INTERNAL: Entry("server_error", 500, "INTERNAL", "An internal error occurred."),
    Reason.UPSTREAM_FAILED: Entry("upstream_error", 502, "UNAVAILABLE", "A part that this call depends on failed.", 1),
    Reason.SERVICE_OVERLOADED: Entry(*_UNAVAILABLE, "The service is at capacity.", 1),
    Reason.MODEL_UNAVAILABLE: Entry(*_UNAVAILABLE, "The model cannot be served now.", 30),
    Reason.CIRCUIT_OPEN: Entry(*_UNAVAILABLE, "A part that this call depends on keeps failing and is left alone.", 1),
    Reason.STORE_UNAVAILABLE: Entry(*_UNAVAILABLE, "The state store cannot be reached.", 1),
    Reason.SERVICE_DRAINING: Entry(*_UNAVAILABLE, "The server is shutting down.", 1),
    Reason.TIMEOUT_EXCEEDED: Entry(
        "gateway_timeout", 504, "DEADLINE_EXCEEDED", "The call took longer than its time budget.", 1
    ),
    Reason.IMAGE_URL_NOT_ALLOWED: Entry(
        *_VALIDATION, "The image's URL must be https, on port 443, at a public address."
    ),
    Reason.IMAGE_FETCH_FAILED: Entry(*_UNPROCESSABLE, "The image could not be fetched from its URL."),
    Reason.IDEMPOTENCY_KEY_INVALID: Entry(*_VALIDATION, "The idempotency key is not valid here."),
    Reason.IDEMPOTENCY_IN_PROGRESS: Entry(
        "conflict", 409, "ABORTED", "The first call with this idempotency key still runs.", 1
    ),
    Reason.IDEMPOTENCY_KEY_REUSED: Entry(*_UNPROCESSABLE, "The idempotency key was used for another request."),
    Reason.JOB_NOT_FOUND: Entry(*_NOT_FOUND, "There is no such job."),
    Reason.JOB_RESULTS_EXPIRED: Entry(*_NOT_FOUND, "The job's results have expired."),
    Reason.JOB_ALREADY_COMPLETED: Entry("conflict", 409, "FAILED_PRECONDITION", "The job has already ended."),
    Reason.CURSOR_INVALID: Entry(*_VALIDATION, "The cursor is not valid for this listing."),
    Reason.UPLOAD_NOT_FOUND: Entry(*_NOT_FOUND, "There is no such upload."),
    Reason.UPLOAD_OFFSET_CONFLICT: Entry("conflict", 409, "ABORTED", "The bytes do not follow those that have come."),
    Reason.UPLOAD_PROTOCOL_UNSUPPORTED: Entry(
        "validation_error",
        412,
        "FAILED_PRECONDITION",
        "Of the tus protocol version 1.0.0 is spoken here.",
    ),
    Reason.RESOURCE_VERSION_CONFLICT: Entry("conflict", 409, "FAILED_PRECONDITION", "The upload has come already."),
    Reason.WEBHOOK_NOT_FOUND: Entry(*_NOT_FOUND, "There is no such webhook."),
    Reason.WEBHOOK_URL_NOT_ALLOWED: Entry(
        *_VALIDATION, "The webhook's URL must be https, on port 443, at a public address."
    ),
    Reason.RATE_EXCEEDED: Entry(*_RATE, "Too many requests in too short a time.", 1),
    Reason.QUOTA_EXCEEDED: Entry(*_RATE, "The tenant has used its images of the day.", 1),
    Reason.CONCURRENCY_EXCEEDED: Entry(*_RATE, "The tenant has too many calls running.", 1),
    Reason.PLAN_NOT_FOUND: Entry(*_NOT_FOUND, "There is no such plan."),
}


class ApiError(Exception):
    """The one exception raised for callers to see.

    `details` are short facts of ours (a limit, a field name), never the caller's bytes.
    `message` replaces the catalogue's sentence where a more exact one helps, and `retry_after_s` its hint.
    """

    def __init__(
        self, reason: Reason, message: str | None = None, *, retry_after_s: int | None = None, **details: Any
    ) -> None:
        self.reason = reason
        self.entry = CATALOGUE[reason]
        self.message = message or self.entry.message
        self.details = details
        self._retry_after_s = retry_after_s
        super().__init__(f"{reason}: {self.message}")

    @property
    def retry_after_s(self) -> int | None:
        """Seconds after which trying again may help; None where it does not."""
        return self.entry.retry_after_s if self._retry_after_s is None else self._retry_after_s

    def fields(self) -> dict[str, Any]:
        """Returns the error as JSON can carry it."""
        return {"code": self.reason, "message": self.message, "details": self.details}

    def at(self, place: str) -> ApiError:
        """Returns the error of a part of a request, `place` put before the field that it names."""
        field = self.details.get("field")
        details = self.details | {"field": f"{place}.{field}" if field else place}
        return ApiError(self.reason, self.message, retry_after_s=self._retry_after_s, **details)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> ApiError:
        """Returns the error that `fields` made JSON of."""
        return cls(Reason(fields["code"]), fields["message"], **fields["details"])


class OperatorError(Exception):
    """Something that the person at the command line must settle; the message says what and how."""
