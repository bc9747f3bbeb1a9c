"""The preamble of an object's file: what is known about the object before its content is decrypted."""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass, replace
from typing import Self

from camserve_server.stores.aead import DamagedError

_MAGIC = b"CSO2"
_FIXED = struct.Struct(">4s4sQdB")
_SEAL_BYTES = 32
MAX_PREAMBLE_BYTES = _FIXED.size + 255 + _SEAL_BYTES


@dataclass(frozen=True, slots=True)
class Preamble:
    """Key id (4 bytes), expiry in unix seconds, media type and length of an object.

    On disk an HMAC-SHA256 follows it, so that these can be trusted without decrypting a segment. The same
    bytes but for the length, which is known last, are with tenant and object id the associated data of the
    content: neither part can be moved to another object or tenant.
    """

    key_id: bytes
    expires_at: float
    content_type: str
    size_bytes: int = 0

    @classmethod
    def parse(cls, head: bytes) -> tuple[Self, bytes]:
        """Returns the preamble that `head` begins with and its seal, not yet checked.

        Raises DamagedError when there is none.
        """
        try:
            magic, key_id, size_bytes, expires_at, length = _FIXED.unpack_from(head)
            content_type = head[_FIXED.size : _FIXED.size + length].decode("ascii")
        except (struct.error, UnicodeDecodeError) as error:
            raise DamagedError("the preamble is malformed") from error
        preamble = cls(key_id, expires_at, content_type, size_bytes)
        if magic != _MAGIC or len(head) < preamble.stored_bytes:
            raise DamagedError("the preamble is malformed")
        return preamble, head[preamble.stored_bytes - _SEAL_BYTES : preamble.stored_bytes]

    @property
    def stored_bytes(self) -> int:
        """The length in the file, seal included; the encrypted content follows."""
        return _FIXED.size + len(self.content_type) + _SEAL_BYTES

    def associated(self, tenant: str, object_id: str) -> bytes:
        """Returns the associated data of the content: this without the length, the tenant and the object id."""
        owner = tenant.encode()
        return replace(self, size_bytes=0)._plain() + struct.pack(">H", len(owner)) + owner + object_id.encode("ascii")

    def sealed(self, key: bytes, associated: bytes) -> bytes:
        """Returns the preamble as it is stored, with its seal; `associated` is from `associated()`."""
        return self._plain() + self._seal(key, associated)

    def check(self, key: bytes, associated: bytes, seal: bytes) -> None:
        """Raises DamagedError unless `seal` was made with this key for this preamble, tenant and object."""
        if not hmac.compare_digest(self._seal(key, associated), seal):
            raise DamagedError("the preamble does not authenticate")

    def _seal(self, key: bytes, associated: bytes) -> bytes:
        return hmac.digest(key, struct.pack(">Q", self.size_bytes) + associated, "sha256")

    def _plain(self) -> bytes:
        content_type = self.content_type.encode("ascii")
        if len(content_type) > 255:
            raise ValueError("the content type is longer than 255 characters")
        return _FIXED.pack(_MAGIC, self.key_id, self.size_bytes, self.expires_at, len(content_type)) + content_type
