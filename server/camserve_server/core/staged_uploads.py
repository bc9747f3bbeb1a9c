"""Presigned uploads that go to the object store itself, and are looked at when they are first asked for."""

from __future__ import annotations

from urllib.parse import urlsplit

from camserve_server.base.clock import Clock
from camserve_server.base.ids import derived_id, new_id
from camserve_server.core.uploads import UploadLink
from camserve_server.stores.objects import DirectLinks, new_object_id
from camserve_server.stores.pending_uploads import Declaration, PendingUploads
from camserve_server.stores.uploads import Presigned

# As long as an idempotency key may ask for the link again.
_KEPT_S = 24 * 3600.0


class StagedUploads:
    """Makes links that work for `link_s`; length, type and MD5 are bound by their signature."""

    def __init__(self, pending: PendingUploads, links: DirectLinks, clock: Clock, *, link_s: float) -> None:
        self._pending = pending
        self._links = links
        self._clock = clock
        self._link_s = link_s

    async def presign(self, tenant: str, presigned: Presigned, *, nonce: str | None = None) -> UploadLink:
        """Returns a link for one image of that kind; under a nonce a second time is the first one again."""
        storage_id = derived_id("img", nonce) if nonce else new_id("img")
        keep_until = self._clock.now() + _KEPT_S + self._link_s
        declared = Declaration(presigned.size_bytes, presigned.media_type, md5=presigned.md5, staged=True)
        object_id, expires_ms = await self._pending.stage(
            tenant, storage_id, declared, new_object_id(keep_until), expires_ms=round(keep_until * 1000)
        )
        headers = {"Content-Length": str(presigned.size_bytes), "Content-Type": presigned.media_type}
        if presigned.md5:
            headers["Content-MD5"] = presigned.md5
        expires_at = self._expires_at()
        url, bound = self._links.upload(tenant, object_id, headers, keep_until=expires_ms / 1000, expires_at=expires_at)
        return UploadLink(storage_id, url, expires_at, bound)

    def again(self, tenant: str, link: UploadLink) -> UploadLink:
        """Returns a link to the same place that works from now on."""
        expires_at = self._expires_at()
        object_id = urlsplit(link.url).path.rpartition("/")[2]
        url = self._links.upload_again(tenant, object_id, link.headers, expires_at=expires_at)
        return UploadLink(link.storage_id, url, expires_at, link.headers)

    def _expires_at(self) -> float:
        return float(int(self._clock.now() + self._link_s))
