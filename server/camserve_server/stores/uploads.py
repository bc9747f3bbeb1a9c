"""Uploads: which object holds an image that was stored, and what a presigned one must be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson
from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.redis import unavailable_on_error
from camserve_server.stores.scripts import Script

_KEEP = Script("upload_keep")


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """An image that is stored; times are unix time in milliseconds, sides are None where the header did not tell."""

    storage_id: str
    object_id: str
    size_bytes: int
    media_type: str
    width: int | None
    height: int | None
    sha256: str
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Presigned:
    """What the image of a presigned upload must be; `md5` in base64.

    `used_by` is there once the image has come: the nonce of the call that brought it, empty for one without.
    """

    media_type: str
    size_bytes: int
    md5: str | None
    used_by: str | None = None


class Uploads:
    """The uploads of all tenants. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer."""

    def __init__(self, redis: Redis, disk: Disk) -> None:
        self._redis = redis
        self._disk = disk

    async def create(
        self, tenant: str, record: UploadRecord, *, pending: bool = False, nonce: str | None = None
    ) -> UploadRecord | None:
        """Records an upload once: returns the one that has the id, which is another when it came before.

        What came piece by piece under the id is ended in the same step, and its link is used; with `pending` there must
        be such a one, else nothing is recorded and None returned. So it is for an id whose link was used before.
        """
        places = (
            keys.upload(tenant, record.storage_id),
            keys.pending_upload(tenant, record.storage_id),
            keys.pending_parts(tenant, record.storage_id),
            keys.presigned(tenant, record.storage_id),
        )
        pipe = self._redis.pipeline(transaction=False)
        pipe.eval(
            _KEEP.source,
            len(places),
            *places,
            orjson.dumps(asdict(record)),
            record.expires_ms,
            int(pending),
            nonce or "",
        )
        (stored,) = await self._disk.execute(pipe)
        return UploadRecord(**orjson.loads(stored)) if stored else None

    async def get(self, tenant: str, storage_id: str) -> UploadRecord | None:
        """Returns an upload, None when the tenant has none of that id."""
        fields = await self._read(keys.upload(tenant, storage_id))
        return UploadRecord(**fields) if fields else None

    async def delete(self, tenant: str, storage_id: str) -> bool:
        """Forgets an upload; False when the tenant has none of that id."""
        with unavailable_on_error():
            return bool(await self._redis.delete(keys.upload(tenant, storage_id)))

    async def promise(self, tenant: str, storage_id: str, presigned: Presigned, *, expires_ms: int) -> None:
        """Notes what a presigned upload must be; what is noted already stays, and stays for longer."""
        place = keys.presigned(tenant, storage_id)
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(place, orjson.dumps(asdict(presigned)), pxat=expires_ms, nx=True)
        pipe.pexpireat(place, expires_ms, gt=True)
        await self._disk.execute(pipe)

    async def promised(self, tenant: str, storage_id: str) -> Presigned | None:
        """Returns what a presigned upload must be, None for one that is over or never was."""
        fields = await self._read(keys.presigned(tenant, storage_id))
        return Presigned(**fields) if fields else None

    async def _read(self, place: str) -> dict[str, Any] | None:
        with unavailable_on_error():
            stored = await self._redis.get(place)
        return orjson.loads(stored) if stored else None
