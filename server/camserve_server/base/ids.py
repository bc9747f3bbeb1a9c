"""Identifiers: random, short, unguessable."""

from __future__ import annotations

import hashlib
import secrets
import string

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase


def base62(value: int, length: int) -> str:
    """Returns `value` in base 62, padded with zeros to `length` characters."""
    digits = []
    for _ in range(length):
        value, digit = divmod(value, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(prefix: str) -> str:
    """Returns `prefix_` and 22 characters that carry 128 random bits."""
    return f"{prefix}_{base62(secrets.randbits(128), 22)}"


def derived_id(prefix: str, secret: str) -> str:
    """Returns an id like `new_id` that is the same whenever it is made of the same secret."""
    return f"{prefix}_{base62(int.from_bytes(hashlib.sha256(secret.encode()).digest()[:16], 'big'), 22)}"
