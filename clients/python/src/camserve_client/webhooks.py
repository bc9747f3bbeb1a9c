"""Verifies events that come to a webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camserve_client.errors import ANSWER_INVALID, CamserveError

TOLERANCE_S = 300.0
_PREFIX = "whsec_"
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """An event that is authentic. `id` is the same in every attempt at it: expect it more than once."""

    id: str
    event: str
    job_id: str
    status: str
    items_succeeded: int
    items_failed: int
    results_url: str
    metadata: Mapping[str, Any] | None


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes | bytearray | memoryview,
    secrets: str | Sequence[str],
    tolerance_s: float = TOLERANCE_S,
    *,
    now: float | None = None,
) -> WebhookEvent:
    """Returns the event of a POST whose signature fits one of the secrets (`whsec_…`).

    `headers` may have any case; `body` is the raw body, before anything parsed it. `now` is the Unix time, by default
    the machine's. Raises CamserveError `signature.invalid` for an event that is signed with none of the secrets,
    `signature.expired` for one whose time is further from now than `tolerance_s`, `answer.invalid` for one that is
    signed and yet no event of the service's; ValueError for a secret that is none, TypeError for a body that is text.
    """
    if isinstance(body, str):
        raise TypeError("the body of an event is bytes, as they came")
    keys = [_key(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    known = {name.lower(): value for name, value in headers.items()}
    event_id, timestamp = known.get("x-event-id", ""), known.get("x-timestamp", "")
    signed = f"{event_id}.{timestamp}.".encode(errors="replace") + bytes(body)
    offered = [one.strip().encode(errors="replace") for one in known.get("x-signature", "").split(",")]
    expected = [f"sha256={hmac.new(key, signed, hashlib.sha256).hexdigest()}".encode() for key in keys]
    if not any(hmac.compare_digest(one, other) for one in expected for other in offered):
        raise CamserveError("signature.invalid", "The event is not signed with the secret.", status=403)
    # Only now: what is signed is what the service wrote.
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance_s:
        raise CamserveError("signature.expired", "The event is too old, or this clock is off.", status=403)
    try:
        said = json.loads(bytes(body))
        return WebhookEvent(
            event_id,
            said["event"],
            said["job_id"],
            said["status"],
            said["items_succeeded"],
            said["items_failed"],
            said["results_url"],
            said.get("metadata"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CamserveError(ANSWER_INVALID, "What is signed is no event of the service.") from None


def _key(secret: str) -> bytes:
    if not isinstance(secret, str):
        raise TypeError("a secret is text")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    # Text that is not ASCII is a ValueError of its own.
    except ValueError:
        key = b""
    if not secret.startswith(_PREFIX) or len(key) != _SECRET_BYTES:
        raise ValueError(f"a secret is {_PREFIX} and the base64 of {_SECRET_BYTES} bytes")
    return key
