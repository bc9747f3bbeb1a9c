"""Uploads that come piece by piece: what was declared, and which objects hold what has come."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from redis.asyncio import Redis

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.redis import text, unavailable_on_error
from camserve_server.stores.scripts import Script
from camserve_server.stores.sealing import Sealer

_APPEND = Script("upload_append")
_GONE, _ELSEWHERE, _TOO_MANY = -1, -2, -3
# More than a sender needs that is cut off every ten seconds for a day.
MOST_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Declaration:
    """What an upload will be; `md5` in base64, `tus_metadata` as its caller sent it.

    One that is `staged` comes to the object store in one piece, past this service, by a link that works once.
    """

    size_bytes: int
    media_type: str | None = None
    file_name: str | None = None
    md5: str | None = None
    tus_metadata: str | None = None
    staged: bool = False

    @property
    def md5_bytes(self) -> bytes | None:
        """The MD5 itself."""
        return base64.b64decode(self.md5) if self.md5 else None


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """An upload of which `offset` bytes have come."""

    declared: Declaration
    offset: int
    expires_ms: int

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.offset == self.declared.size_bytes


class PendingUploads:
    """The unfinished uploads of all tenants.

    Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.
    """

    def __init__(self, redis: Redis, sealer: Sealer, disk: Disk) -> None:
        self._redis = redis
        self._sealer = sealer
        self._disk = disk

    async def begin(self, tenant: str, storage_id: str, declared: Declaration, *, expires_ms: int) -> None:
        """Notes an upload of which nothing has come; one that has begun already stays as it is."""
        place = keys.pending_upload(tenant, storage_id)
        sealed = self._sealer.seal(orjson.dumps(asdict(declared)), place)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hsetnx(place, "declared", sealed)
        pipe.hsetnx(place, "offset", "0")
        pipe.hsetnx(place, "expires_ms", str(expires_ms))
        pipe.pexpireat(place, expires_ms, nx=True)
        await self._disk.execute(pipe)

    async def stage(
        self, tenant: str, storage_id: str, declared: Declaration, object_id: str, *, expires_ms: int
    ) -> tuple[str, int]:
        """Notes an upload whose bytes come to one object at once.

        Returns the object and when it expires, or those of the upload of this id that began before.
        """
        await self.begin(tenant, storage_id, declared, expires_ms=expires_ms)
        with contextlib.suppress(ApiError):
            await self.append(tenant, storage_id, 0, object_id, declared.size_bytes)
        pending, parts = await self.get(tenant, storage_id), await self.parts(tenant, storage_id)
        if pending is None or not parts:
            raise ApiError(Reason.STORE_UNAVAILABLE)
        return parts[0], pending.expires_ms

    async def get(self, tenant: str, storage_id: str) -> PendingUpload | None:
        """Returns an upload that has begun and is not finished, None when the tenant has none of that id."""
        place = keys.pending_upload(tenant, storage_id)
        with unavailable_on_error():
            fields: Any = await self._redis.hgetall(place)
        if not fields:
            return None
        declared: dict[str, Any] = orjson.loads(self._sealer.open(fields[b"declared"], place))
        return PendingUpload(Declaration(**declared), int(fields[b"offset"]), int(fields[b"expires_ms"]))

    async def parts(self, tenant: str, storage_id: str) -> tuple[str, ...]:
        """Returns the objects that hold what has come, in order."""
        with unavailable_on_error():
            rows = await self._redis.lrange(keys.pending_parts(tenant, storage_id), 0, -1)
        return tuple(text(row) for row in rows)

    async def append(self, tenant: str, storage_id: str, offset: int, object_id: str, size_bytes: int) -> int:
        """Adds the object that holds the bytes from `offset` on; returns the new offset. It is on the disk then.

        Raises ApiError: UPLOAD_NOT_FOUND, UPLOAD_OFFSET_CONFLICT when the bytes that have come end elsewhere,
        PARAM_INVALID for too many pieces.
        """
        places = (keys.pending_upload(tenant, storage_id), keys.pending_parts(tenant, storage_id))
        pipe = self._redis.pipeline(transaction=False)
        pipe.eval(_APPEND.source, 2, *places, offset, object_id, size_bytes, MOST_PARTS)
        reply = int((await self._disk.execute(pipe))[0])
        if reply == _GONE:
            raise ApiError(Reason.UPLOAD_NOT_FOUND)
        if reply == _ELSEWHERE:
            raise ApiError(Reason.UPLOAD_OFFSET_CONFLICT)
        if reply == _TOO_MANY:
            raise ApiError(Reason.PARAM_INVALID, f"An upload comes in {MOST_PARTS:,} pieces at most.")
        return reply

    async def delete(self, tenant: str, storage_id: str) -> None:
        """Forgets an upload; its parts are the caller's to delete."""
        with unavailable_on_error():
            await self._redis.delete(keys.pending_upload(tenant, storage_id), keys.pending_parts(tenant, storage_id))
