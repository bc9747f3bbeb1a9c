"""Objects handed out by signed, expiring links."""

from __future__ import annotations

import re
from dataclasses import dataclass

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.retention import Retention
from camserve_server.core.signing import UrlSigner
from camserve_server.stores.objects import DirectLinks, ObjectStore, StoredObject, read_whole

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Link:
    """A signed link to an object and when it ends, in unix seconds."""

    object_id: str
    url: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Part:
    """An open object and the bytes [start, end) of it that were asked for; `partial` when a range asked."""

    stored: StoredObject
    start: int
    end: int
    partial: bool


class Links:
    """Stores objects, signs links to them and follows such links; with `direct` links lead past the edge."""

    def __init__(
        self,
        objects: ObjectStore,
        signer: UrlSigner,
        clock: Clock,
        *,
        prefix: str,
        ttl_s: float,
        retention: Retention,
        direct: DirectLinks | None = None,
    ) -> None:
        self._objects = objects
        self._signer = signer
        self._clock = clock
        self._prefix = prefix
        self._ttl_s = ttl_s
        self._direct = direct
        self._retention = retention

    async def store(
        self, tenant: str, data: bytes | memoryview, content_type: str, *, keep_until: float | None = None
    ) -> Link:
        """Stores `data` and returns a link to it.

        It is kept until `keep_until` (unix seconds), by default as long as heatmaps are. Raises
        ApiError(UPSTREAM_FAILED).
        """
        if keep_until is None:
            # A link never outlives what it leads to.
            keep_until = self._clock.now() + max(self._retention.seconds(tenant), self._ttl_s)
        object_id = await self._objects.put(tenant, data, content_type=content_type, expires_at=keep_until)
        return self.sign(tenant, object_id)

    def sign(self, tenant: str, object_id: str) -> Link:
        """Returns a link to an object that is stored."""
        expires_at = float(int(self._clock.now() + self._ttl_s))
        if self._direct:
            return Link(object_id, self._direct.download(tenant, object_id, expires_at=expires_at), expires_at)
        token = self._signer.sign(tenant, object_id, expires_at)
        return Link(object_id, f"{self._prefix}/v1/objects/{object_id}?token={token}", expires_at)

    async def read(self, tenant: str, object_id: str) -> bytes:
        """Returns all bytes of an object; raises ApiError: OBJECT_NOT_FOUND, UPSTREAM_FAILED."""
        return await read_whole(self._objects, tenant, object_id)

    def tenant(self, object_id: str, token: str) -> str:
        """Returns whose object a link leads to; raises ApiError: SIGNATURE_INVALID, SIGNATURE_EXPIRED."""
        return self._signer.verify(object_id, token, self._clock.now())

    async def open(self, tenant: str, object_id: str, range_header: str | None) -> Part:
        """Returns what a link leads to; the caller closes `stored`.

        Raises ApiError: OBJECT_NOT_FOUND, UPSTREAM_FAILED, PARAM_OUT_OF_RANGE for a range that begins past the end.
        """
        stored = await self._objects.open(tenant, object_id)
        try:
            start, end, partial = parse_range(range_header, stored.size_bytes)
        except ApiError:
            await stored.close()
            raise
        return Part(stored, start, end, partial)


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int, bool]:
    """Returns start, end (exclusive) and whether the header chose a part (RFC 9110 section 14.1.2).

    Other units, several ranges and malformed headers are ignored, as the RFC allows. Raises
    ApiError(PARAM_OUT_OF_RANGE) for a range that no byte satisfies.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if not match or not (match[1] or match[2]):
        return 0, size_bytes, False
    if not match[1]:
        start, end = max(0, size_bytes - int(match[2])), size_bytes
    else:
        start = int(match[1])
        end = min(size_bytes, int(match[2]) + 1) if match[2] else size_bytes
        if match[2] and int(match[2]) < start:
            return 0, size_bytes, False
    if start >= end:
        raise ApiError(Reason.PARAM_OUT_OF_RANGE, "The range is past the end.", size_bytes=size_bytes)
    return start, end, True
