"""Multipart uploads of a bucket that nobody will finish: they cost room, and no listing of objects shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from xml.etree import ElementTree

import aiohttp
from yarl import URL

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.sigv4 import Credentials, presigned

# Longer than any upload takes.
_LIFETIME_S = 24 * 3600.0
_LINK_S = 60
_TIMEOUT_S = 60.0


class UnfinishedUploads:
    """Ends uploads below `prefix` that began a day ago."""

    def __init__(self, bucket_url: str, prefix: str, credentials: Credentials, *, region: str, clock: Clock) -> None:
        self._bucket_url = bucket_url
        self._prefix = prefix
        self._credentials = credentials
        self._region = region
        self._clock = clock

    async def remove(self) -> int:
        """Returns how many were ended; raises ApiError(UPSTREAM_FAILED)."""
        return await self._end(self._prefix, _LIFETIME_S)

    async def end(self, key: str) -> None:
        """Ends the uploads of one object; raises ApiError(UPSTREAM_FAILED)."""
        await self._end(key, 0.0)

    async def _end(self, prefix: str, lifetime_s: float) -> int:
        ended = 0
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
                async for key, upload_id, begun_at in self._uploads(session, prefix):
                    if begun_at + lifetime_s <= self._clock.now():
                        async with session.delete(self._url("DELETE", f"/{key}", uploadId=upload_id)) as answer:
                            answer.raise_for_status()
                        ended += 1
        except (TimeoutError, aiohttp.ClientError, ElementTree.ParseError, ValueError) as error:
            # Of the error itself only this: it holds a signed address.
            told = f"unfinished uploads: {type(error).__name__} {getattr(error, 'status', '')}"
            raise ApiError(Reason.UPSTREAM_FAILED) from OSError(told)
        return ended

    async def _uploads(self, session: aiohttp.ClientSession, prefix: str) -> AsyncIterator[tuple[str, str, float]]:
        """Yields key, upload id and begin (unix seconds) of every upload that is not finished."""
        place = {"uploads": "", "prefix": prefix}
        while True:
            async with session.get(self._url("GET", "", **place)) as answer:
                answer.raise_for_status()
                listed = ElementTree.fromstring(await answer.text())
            for upload in listed.iterfind("{*}Upload"):
                begun = datetime.fromisoformat(_text(upload, "Initiated"))
                yield _text(upload, "Key"), _text(upload, "UploadId"), begun.timestamp()
            marker = _text(listed, "NextKeyMarker")
            if _text(listed, "IsTruncated") != "true" or not marker:
                return
            place |= {"key-marker": marker, "upload-id-marker": _text(listed, "NextUploadIdMarker")}

    def _url(self, method: str, path: str, **query: str) -> URL:
        url = presigned(
            method,
            self._bucket_url + path,
            self._credentials,
            region=self._region,
            now=self._clock.now(),
            expires_s=_LINK_S,
            query=query,
        )
        return URL(url, encoded=True)


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""
