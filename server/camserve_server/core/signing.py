"""Tokens that open one object of one tenant until they expire."""

from __future__ import annotations

import base64
import re
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.keyring import KEY_ID_BYTES, KeyRing

MAX_TENANT_BYTES = 100
_VERSION = 1
_TOKEN = re.compile(r"[0-9A-Za-z_-]{24,200}")
_FIXED = struct.Struct(">dB")
_BLOCK_BYTES = 16


class UrlSigner:
    """Signs and verifies the `token` of an object's link.

    A token is base64url of version, key id and AES-SIV over expiry and tenant, with the object id as
    associated data: it is authentic, bound to its object, and tells its holder nothing, not even the
    tenant's name. SIV (RFC 5297) needs no nonce, so the number of tokens under one key has no practical
    limit; the same grant gives the same token. Signers of different purposes refuse each other's tokens.
    """

    def __init__(self, ring: KeyRing, *, purpose: str = "download") -> None:
        self._ring = ring
        self._purpose = f"url {purpose}"

    def sign(self, tenant: str, object_id: str, expires_at: float) -> str:
        """Returns a token of at most 200 URL-safe characters, valid before `expires_at` (unix seconds).

        Raises ValueError when the tenant's name has more than 100 bytes.
        """
        owner = tenant.encode()
        if len(owner) > MAX_TENANT_BYTES:
            raise ValueError("the tenant's name is too long for a token")
        grant = _FIXED.pack(expires_at, len(owner)) + owner
        # Padding keeps the length of the token from telling the length of the name.
        grant += bytes(-len(grant) % _BLOCK_BYTES)
        key = self._ring.primary()
        cipher = AESSIV(self._ring.subkey(key, self._purpose, 64))
        sealed = cipher.encrypt(grant, [object_id.encode()])
        return _encode(bytes([_VERSION]) + key.id_bytes + sealed)

    def verify(self, object_id: str, token: str, now: float) -> str:
        """Returns the tenant that the token was signed for.

        Raises ApiError: SIGNATURE_INVALID for tokens that are malformed, forged or another object's, and
        SIGNATURE_EXPIRED for a genuine token at or past its expiry.
        """
        expires_at, tenant = self._open(object_id, token)
        if expires_at <= now:
            raise ApiError(Reason.SIGNATURE_EXPIRED)
        return tenant

    def _open(self, object_id: str, token: str) -> tuple[float, str]:
        sealed = _decode(token)
        key = self._ring.get(sealed[1 : 1 + KEY_ID_BYTES])
        if key is None:
            raise ApiError(Reason.SIGNATURE_INVALID)
        cipher = AESSIV(self._ring.subkey(key, self._purpose, 64))
        try:
            grant = cipher.decrypt(sealed[1 + KEY_ID_BYTES :], [object_id.encode(errors="surrogatepass")])
        except InvalidTag as error:
            raise ApiError(Reason.SIGNATURE_INVALID) from error
        expires_at, length = _FIXED.unpack_from(grant)
        return expires_at, grant[_FIXED.size : _FIXED.size + length].decode()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(token: str) -> bytes:
    if not _TOKEN.fullmatch(token):
        raise ApiError(Reason.SIGNATURE_INVALID)
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError as error:
        raise ApiError(Reason.SIGNATURE_INVALID) from error
    # One token has one spelling: unused bits of the last character must be zero.
    if raw[0] != _VERSION or _encode(raw) != token:
        raise ApiError(Reason.SIGNATURE_INVALID)
    return raw
