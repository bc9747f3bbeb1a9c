"""Images that are stored once and used many times."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import derived_id, new_id
from camserve_server.base.tasks import completed
from camserve_server.core.antivirus import Antivirus
from camserve_server.core.incoming import IncomingImage
from camserve_server.core.object_images import load
from camserve_server.core.retention import Retention
from camserve_server.core.signing import UrlSigner
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.engine.imaging import ImagingPool, Probed
from camserve_server.stores.objects import ObjectStore
from camserve_server.stores.uploads import Presigned, UploadRecord, Uploads

_STORAGE_ID = re.compile(r"img_[0-9A-Za-z]{22}")
_OBJECT = "obj_"
# As long as an idempotency key may ask for the link again.
_PROMISED_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class UploadLink:
    """Where the bytes of a presigned upload go, until `expires_at` (unix seconds)."""

    storage_id: str
    url: str
    expires_at: float
    headers: Mapping[str, str]


class Presigning(Protocol):
    """Makes links to which anybody may send one image, once."""

    async def presign(self, tenant: str, presigned: Presigned, *, nonce: str | None = None) -> UploadLink:
        """Returns a link for one image of that kind; under a nonce a second time is the first one again."""

    def again(self, tenant: str, link: UploadLink) -> UploadLink:
        """Returns a link that works from now on."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a link to upload to allows."""

    tenant: str
    storage_id: str
    presigned: Presigned


class UploadService:
    """Keeps images as long as `retention` says; links begin with `prefix` and work for `link_s`."""

    def __init__(
        self,
        uploads: Uploads,
        objects: ObjectStore,
        imaging: ImagingPool,
        antivirus: Antivirus,
        signer: UrlSigner,
        budget: ByteBudget,
        clock: Clock,
        *,
        prefix: str,
        link_s: float,
        retention: Retention,
    ) -> None:
        self._uploads = uploads
        self._objects = objects
        self._imaging = imaging
        self._antivirus = antivirus
        self._signer = signer
        self._budget = budget
        self._clock = clock
        self._prefix = prefix
        self._link_s = link_s
        self._retention = retention
        self.on_missing: Callable[[str, str], Awaitable[UploadRecord | None]] = self.find
        """Is asked for an upload that is not there; whoever holds the parts of one may make it."""

    def incoming(
        self, tenant: str, media_type: str | None, file_name: str | None = None, *, has_md5: bool
    ) -> IncomingImage:
        """Returns what takes the bytes of an image of the declared type, which has a declared MD5 or none."""
        return IncomingImage(
            tenant,
            self._objects,
            self._imaging,
            self._antivirus,
            self._budget,
            expires_at=self._clock.now() + self._retention.seconds(tenant),
            media_type=media_type,
            file_name=file_name,
            has_md5=has_md5,
        )

    async def keep(
        self,
        tenant: str,
        incoming: IncomingImage,
        *,
        md5: bytes | None,
        storage_id: str | None = None,
        nonce: str | None = None,
        pending: bool = False,
    ) -> UploadRecord:
        """Keeps an image that has ended; under a nonce a second time is the first one again.

        Raises ApiError as IncomingImage does, RESOURCE_VERSION_CONFLICT when `storage_id` has or had its image already,
        and UPLOAD_NOT_FOUND when the image should be that of a `pending` upload which is gone.
        """
        probed = await incoming.check(md5)
        # All has come: for somebody who leaves now there would be an object that no record leads to.
        return await completed(self._kept(tenant, incoming, probed, storage_id, nonce, pending=pending))

    async def _kept(
        self,
        tenant: str,
        incoming: IncomingImage,
        probed: Probed | None,
        storage_id: str | None,
        nonce: str | None,
        *,
        pending: bool,
    ) -> UploadRecord:
        object_id = await incoming.commit()
        record = UploadRecord(
            storage_id=storage_id or (derived_id("img", nonce) if nonce else new_id("img")),
            object_id=object_id,
            size_bytes=incoming.size,
            media_type=incoming.media_type,
            width=probed.width if probed else None,
            height=probed.height if probed else None,
            sha256=incoming.sha256.hex(),
            created_ms=round(self._clock.now() * 1000),
            expires_ms=round(incoming.expires_at * 1000),
        )
        kept = await self._uploads.create(tenant, record, pending=pending, nonce=nonce)
        if kept is None or kept.object_id != object_id:
            with contextlib.suppress(ApiError):
                await self._objects.delete(tenant, object_id)
            if kept is None:
                raise ApiError(Reason.UPLOAD_NOT_FOUND if pending else Reason.RESOURCE_VERSION_CONFLICT)
            if storage_id and not await self._came_before(tenant, storage_id, nonce):
                raise ApiError(Reason.RESOURCE_VERSION_CONFLICT)
        return kept

    async def _came_before(self, tenant: str, storage_id: str, nonce: str | None) -> bool:
        """Whether the image of a link came by the same call, which was cut off before its answer."""
        promised = await self._uploads.promised(tenant, storage_id) if nonce else None
        return promised is not None and promised.used_by == nonce

    async def get(self, tenant: str, storage_id: str) -> UploadRecord:
        """Returns an upload; raises ApiError(UPLOAD_NOT_FOUND)."""
        record = (
            await self.find(tenant, storage_id)
            or await self.on_missing(tenant, storage_id)
            # Another caller may have made it between the two looks.
            or await self.find(tenant, storage_id)
        )
        if record is None:
            raise ApiError(Reason.UPLOAD_NOT_FOUND)
        return record

    async def find(self, tenant: str, storage_id: str) -> UploadRecord | None:
        """Returns an upload that is complete, None when the tenant has none of that id."""
        record = await self._uploads.get(tenant, storage_id) if is_storage_id(storage_id) else None
        return record if record and record.expires_ms > self._clock.now() * 1000 else None

    async def delete(self, tenant: str, storage_id: str) -> None:
        """Removes an upload; raises ApiError(UPLOAD_NOT_FOUND)."""
        record = await self.get(tenant, storage_id)
        # In this order a crash in between leaves an object that nobody knows, which goes when it expires.
        if not await self._uploads.delete(tenant, storage_id):
            raise ApiError(Reason.UPLOAD_NOT_FOUND)
        await self._objects.delete(tenant, record.object_id)

    async def open(self, tenant: str, storage_id: str) -> SharedBuffer:
        """Returns the image in shared memory.

        Raises ApiError: UPLOAD_NOT_FOUND, UPSTREAM_FAILED, SERVICE_OVERLOADED when the budget is exhausted.
        """
        record = await self.get(tenant, storage_id)
        try:
            return await load(self._objects, tenant, record.object_id, self._budget)
        except ApiError as error:
            if error.reason is Reason.OBJECT_NOT_FOUND:
                # Removed since the record was read.
                raise ApiError(Reason.UPLOAD_NOT_FOUND) from None
            raise

    async def presign(self, tenant: str, presigned: Presigned, *, nonce: str | None = None) -> UploadLink:
        """Returns a link to which anybody may send one image of that kind, once."""
        storage_id = derived_id("img", nonce) if nonce else new_id("img")
        expires_at = self._clock.now() + _PROMISED_S + self._link_s
        await self._uploads.promise(tenant, storage_id, presigned, expires_ms=round(expires_at * 1000))
        headers = {"Content-Type": presigned.media_type} | ({"Content-MD5": presigned.md5} if presigned.md5 else {})
        return self._link(tenant, storage_id, headers)

    def again(self, tenant: str, link: UploadLink) -> UploadLink:
        """Returns a link of a presigned upload that works from now on."""
        return self._link(tenant, link.storage_id, link.headers)

    def _link(self, tenant: str, storage_id: str, headers: Mapping[str, str]) -> UploadLink:
        expires_at = float(int(self._clock.now() + self._link_s))
        object_id = _OBJECT + storage_id.removeprefix("img_")
        token = self._signer.sign(tenant, object_id, expires_at)
        return UploadLink(storage_id, f"{self._prefix}/v1/objects/{object_id}?token={token}", expires_at, headers)

    def link_tenant(self, object_id: str, token: str) -> str:
        """Returns whose link this is; raises ApiError: SIGNATURE_INVALID, SIGNATURE_EXPIRED."""
        return self._signer.verify(object_id, token, self._clock.now())

    async def granted(self, tenant: str, object_id: str, *, again: bool = False) -> Grant:
        """Returns what a link of the tenant allows; with `again` also what it allowed before the image came.

        Raises ApiError: SIGNATURE_EXPIRED, RESOURCE_VERSION_CONFLICT once the image has come, and also when it is gone.
        """
        storage_id = "img_" + object_id.removeprefix(_OBJECT)
        presigned = await self._uploads.promised(tenant, storage_id)
        if presigned is None:
            raise ApiError(Reason.SIGNATURE_EXPIRED)
        if presigned.used_by is not None and not again:
            raise ApiError(Reason.RESOURCE_VERSION_CONFLICT)
        return Grant(tenant, storage_id, presigned)


def is_storage_id(text: str) -> bool:
    """Whether a text has the form of the id of an upload."""
    return _STORAGE_ID.fullmatch(text) is not None
