"""Signatures of events, our own and those of Standard Webhooks.

Both are HMAC-SHA256 of an id, a time and the raw body, joined by dots; see
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

SECRET_BYTES = 32
# What receivers are told: an older event may be one that somebody recorded and sends again.
TOLERANCE_S = 300
_PREFIX = "whsec_"


def secret_text(secret: bytes) -> str:
    """Returns a secret as callers get it."""
    return _PREFIX + base64.b64encode(secret).decode()


def secret_bytes(text: str) -> bytes:
    """Returns the key of a secret as callers have it; raises ValueError for anything else."""
    try:
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not text.startswith(_PREFIX) or len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret is {_PREFIX} and the base64 of {SECRET_BYTES} bytes")
    return secret


def signed_headers(secrets: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Returns the headers that identify and sign an event, with one signature for each secret."""
    digests = [_digest(secret, event_id, timestamp, body) for secret in secrets]
    return {
        "x-event-id": event_id,
        "x-timestamp": str(timestamp),
        "x-signature": ",".join(f"sha256={digest.hex()}" for digest in digests),
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


def is_authentic(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Returns whether an event is signed with the secret and at most 300 s old; headers by their lower-case names."""
    event_id, timestamp = headers.get("x-event-id", ""), headers.get("x-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit() and abs(now - int(timestamp)) <= TOLERANCE_S):
        return False
    expected = f"sha256={_digest(secret, event_id, int(timestamp), body).hex()}"
    offered = headers.get("x-signature", "").split(",")
    return any(hmac.compare_digest(expected.encode(), one.strip().encode()) for one in offered)


def _digest(secret: bytes, event_id: str, timestamp: int, body: bytes) -> bytes:
    return hmac.new(secret, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
