"""The errors of the contract: section 6, row by row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What stands beside a code: its HTTP status, its type and the gRPC codes that carry it."""

    status: int
    type: str
    grpc: tuple[str, ...]


_TABLE = """
400 validation_error INVALID_ARGUMENT json.malformed param.invalid param.out_of_range param.layer_not_found
400 validation_error INVALID_ARGUMENT image.source_required image.invalid_format image.base64_invalid image.md5_mismatch
400 validation_error INVALID_ARGUMENT image.too_large image.aspect_ratio image.url_not_allowed webhook.url_not_allowed
400 validation_error INVALID_ARGUMENT batch.empty batch.duplicate_id cursor.invalid idempotency.key_invalid
401 auth_error UNAUTHENTICATED auth.missing_token auth.invalid_token auth.token_expired
401 auth_error PERMISSION_DENIED auth.scope_insufficient
403 authorization_error PERMISSION_DENIED access.denied signature.invalid signature.expired
404 not_found NOT_FOUND route.not_found job.not_found job.results_expired model.not_found model.version_not_found
404 not_found NOT_FOUND upload.not_found object.not_found webhook.not_found
405 validation_error UNIMPLEMENTED method.not_allowed
411 validation_error INVALID_ARGUMENT upload.length_required
409 conflict ABORTED/FAILED_PRECONDITION job.already_completed resource.version_conflict idempotency.in_progress
413 limit_exceeded OUT_OF_RANGE upload.too_large batch.too_large body.too_large
415 media_type_unsupported INVALID_ARGUMENT media.unsupported media.mismatch
422 unprocessable FAILED_PRECONDITION image.decoding_failed image.animated_not_supported image.rejected
422 unprocessable FAILED_PRECONDITION image.fetch_failed idempotency.key_reused
429 rate_limited RESOURCE_EXHAUSTED rate.exceeded quota.exceeded concurrency.exceeded
499 client_closed CANCELLED client.closed
500 server_error INTERNAL internal
502 upstream_error UNAVAILABLE upstream.failed
503 service_unavailable UNAVAILABLE service.overloaded model.unavailable circuit.open store.unavailable service.draining
504 gateway_timeout DEADLINE_EXCEEDED timeout.exceeded
"""


def _rows() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for line in _TABLE.strip().splitlines():
        status, kind, grpc, *codes = line.split()
        rows |= {code: Row(int(status), kind, tuple(grpc.split("/"))) for code in codes}
    return rows


CATALOGUE = _rows()
