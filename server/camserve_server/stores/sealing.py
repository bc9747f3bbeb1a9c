"""Small secrets at rest in Redis: sealed with AES-GCM under the key ring of the deployment."""

from __future__ import annotations

import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.keyring import KeyRing, MasterKey

_NONCE_BYTES = 12
_VERSION = b"\x01"


class Sealer:
    """Seals bytes for one purpose; `place` says where they lie, so that they open nowhere else.

    A sealed text is a version byte, the key's id (4 bytes), the nonce (12), the ciphertext and its tag (16).
    """

    def __init__(self, ring: KeyRing, purpose: str) -> None:
        self._ring = ring
        self._purpose = purpose
        self._ciphers: dict[bytes, AESGCM] = {}

    def seal(self, data: bytes, place: str) -> bytes:
        """Returns `data` sealed with the primary key."""
        key = self._ring.primary()
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + key.id_bytes + nonce + self._cipher(key).encrypt(nonce, data, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Returns what was sealed; raises ApiError(UPSTREAM_FAILED) when it was altered or its key is gone."""
        key = self._ring.get(sealed[1:5]) if sealed[:1] == _VERSION else None
        if key is None:
            raise ApiError(Reason.UPSTREAM_FAILED)
        nonce, ciphertext = sealed[5 : 5 + _NONCE_BYTES], sealed[5 + _NONCE_BYTES :]
        try:
            return self._cipher(key).decrypt(nonce, ciphertext, place.encode())
        except InvalidTag:
            raise ApiError(Reason.UPSTREAM_FAILED) from None

    def derive(self, text: str) -> bytes:
        """Returns 32 bytes that only this text under this key ring and purpose gives."""
        return hmac.digest(self._ring.subkey(self._ring.oldest(), f"{self._purpose} derived"), text.encode(), "sha256")

    def _cipher(self, key: MasterKey) -> AESGCM:
        cipher = self._ciphers.get(key.id_bytes)
        if cipher is None:
            cipher = self._ciphers[key.id_bytes] = AESGCM(self._ring.subkey(key, self._purpose))
        return cipher
