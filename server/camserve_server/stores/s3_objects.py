"""The object store of many machines: a bucket of S3 or of a server that speaks its protocol.

Keys are those of the local store, `<prefix>/<hour>/<tenant hash>/<object id>`, so nothing is indexed and the janitor
drops past hours whole. The bucket encrypts, as the settings ask it to; what is put is on its disks when it answers.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import S3Store

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.objects import HOUR_S, Budget, Draft, new_object_id, place_of
from camserve_server.stores.s3_uploads import UnfinishedUploads
from camserve_server.stores.sigv4 import Credentials, presigned

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Config

_CHUNK_BYTES = 1024 * 1024
# A draft keeps one part in memory while the one before it is on its way. S3 takes up to 10,000 parts of one object.
_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 1
_DRAFT_BYTES = (1 + _PARTS_AT_ONCE) * _PART_BYTES
_TIMEOUT = timedelta(seconds=60)
_RETRY_TIMEOUT = timedelta(seconds=20)
_RETRIES = 4
# Is the name of the member of an object's user metadata, in unix seconds.
_EXPIRES = "camserve-expires"
_EXPIRES_HEADER = f"x-amz-meta-{_EXPIRES}"
# In what the library raises: addresses hold ids of objects and signatures, bodies of answers what was signed.
_ADDRESS = re.compile(r"\S*/\S*")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_MOST_TOLD = 300


@dataclass(frozen=True, slots=True)
class S3Settings:
    """A bucket; without `credentials` the usual places are searched: environment, web identity, container, instance."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None = None
    credentials: Credentials | None = None
    encryption: str | None = None
    kms_key_id: str | None = None

    def bucket_url(self, endpoint: str) -> str:
        """Returns the address of the bucket at an endpoint, the bucket in the path."""
        return f"{endpoint.rstrip('/')}/{self.bucket}"

    @property
    def folder(self) -> str:
        """What every key begins with: nothing, or the prefix and a slash."""
        return f"{self.prefix}/" if self.prefix else ""

    def key(self, tenant: str, object_id: str) -> str:
        """Returns where an object lies; raises ApiError(OBJECT_NOT_FOUND) for what is no object id."""
        return self.folder + "/".join((*place_of(tenant, object_id), object_id))


class S3Objects:
    """An ObjectStore on a bucket; network work runs on threads of the library.

    `budget` is charged for each draft; without room `draft` raises ApiError(SERVICE_OVERLOADED).
    """

    def __init__(self, settings: S3Settings, *, budget: Budget, clock: Clock) -> None:
        self._settings = settings
        self._budget = budget
        self._clock = clock
        self._store = _bucket(settings)
        self._unfinished: UnfinishedUploads | None = None
        if settings.credentials:
            self._unfinished = UnfinishedUploads(
                settings.bucket_url(settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"),
                settings.folder,
                settings.credentials,
                region=settings.region,
                clock=clock,
            )

    async def put(self, tenant: str, data: bytes | memoryview, *, content_type: str, expires_at: float) -> str:
        """Stores `data` and returns its new object id; it is durable then."""
        object_id = new_object_id(expires_at)
        with _failing():
            large = len(data) > 2 * _PART_BYTES
            await obstore.put_async(
                self._store,
                self._settings.key(tenant, object_id),
                # What is large is not copied as a whole.
                _pieces(data) if large else bytes(data),
                attributes=_attributes(content_type, expires_at),
                use_multipart=large,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )
        return object_id

    async def draft(self, tenant: str, *, content_type: str, expires_at: float) -> Draft:
        """Begins an object that is sent in parts; nothing is sent before the first part is full."""
        if not self._budget.try_take(_DRAFT_BYTES, tenant):
            raise ApiError(Reason.SERVICE_OVERLOADED)
        object_id = new_object_id(expires_at)
        key = self._settings.key(tenant, object_id)
        writer = obstore.open_writer_async(
            self._store,
            key,
            attributes=_attributes(content_type, expires_at),
            buffer_size=_PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )
        return S3Draft(object_id, key, writer, self._unfinished, partial(self._budget.give, _DRAFT_BYTES, tenant))

    async def sync(self, tenant: str, object_ids: Sequence[str]) -> None:
        """Has nothing to wait for: S3 answers when an object is durable."""

    async def open(self, tenant: str, object_id: str) -> S3Object:
        """Opens an object by its header alone."""
        key = self._settings.key(tenant, object_id)
        with _failing(missing=Reason.OBJECT_NOT_FOUND):
            header = await obstore.get_async(self._store, key, options={"head": True})
        opened = S3Object(self._store, key, header.meta["size"], header.meta["e_tag"], header.attributes)
        if opened.expires_at <= self._clock.now():
            raise ApiError(Reason.OBJECT_NOT_FOUND)
        return opened

    async def delete(self, tenant: str, object_id: str) -> None:
        """Deletes the object."""
        with _failing(), contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self._store, self._settings.key(tenant, object_id))

    async def check(self) -> None:
        """Lists a folder that is not there, which takes the address, the bucket and the right to use it."""
        with _failing():
            await obstore.list_with_delimiter_async(self._store, f"{self._settings.folder}check")

    async def remove_expired(self) -> int:
        """Removes the objects of past hours, and what is left of drafts that began a day ago.

        For drafts it needs credentials of its settings; without them a lifecycle rule of the bucket does it.
        """
        removed = 0
        with _failing():
            hours = await obstore.list_with_delimiter_async(self._store, self._settings.folder or None)
            for place in hours["common_prefixes"]:
                name = place.rstrip("/").rpartition("/")[2]
                if name.isdecimal() and (int(name) + 1) * HOUR_S <= self._clock.now():
                    async for entries in obstore.list(self._store, place.rstrip("/") + "/"):
                        await obstore.delete_async(self._store, [entry["path"] for entry in entries])
                        removed += len(entries)
        if self._unfinished:
            await self._unfinished.remove()
        return removed

    async def close(self) -> None:
        """Has nothing to let go of: the library closes its connections when they are idle."""


class S3Draft:
    """A Draft that is a multipart upload, or one request when it is small."""

    def __init__(
        self,
        object_id: str,
        key: str,
        writer: Any,
        unfinished: UnfinishedUploads | None,
        give_memory: Callable[[], None],
    ) -> None:
        self.object_id = object_id
        self._key = key
        self._writer: Any | None = writer
        self._unfinished = unfinished
        self._give_memory = give_memory
        self._size_bytes = 0

    async def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Sends a part when one is full."""
        for piece in pieces:
            self._size_bytes += len(piece)
            with _failing():
                # It is kept until a part is full, and what can change is its maker's.
                await self._opened().write(bytes(piece) if isinstance(piece, bytearray) else piece)

    async def commit(self) -> None:
        """Makes the object appear; it is durable then."""
        with _failing():
            await self._opened().close()
        self._let_go()

    async def discard(self) -> None:
        """Ends the upload unless it was committed; where that fails its parts go with the janitor."""
        if self._writer is None:
            return
        self._let_go()
        if self._unfinished and self._size_bytes >= _PART_BYTES:
            with contextlib.suppress(ApiError):
                await self._unfinished.end(self._key)

    def _opened(self) -> Any:
        if self._writer is None:
            raise RuntimeError("the draft was committed or given up")
        return self._writer

    def _let_go(self) -> None:
        self._writer = None
        self._give_memory()


class S3Object:
    """A StoredObject in a bucket, which keeps nothing for who has opened it: `tag` tells whether it is the same."""

    def __init__(
        self, store: S3Store, key: str, size_bytes: int, tag: str | None, attributes: Mapping[str, str]
    ) -> None:
        self.size_bytes = size_bytes
        self.content_type = attributes.get("Content-Type", "application/octet-stream")
        self.expires_at = float(attributes.get(_EXPIRES, 0))
        self._store: S3Store | None = store
        self._key = key
        self._tag = tag

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """Yields the range as it comes, in chunks of 1 MiB at most."""
        if self._store is None or not 0 <= start <= end <= self.size_bytes:
            raise ValueError("the range is outside the object, or the object is closed")
        if start == end:
            return
        came = start
        wanted: GetOptions = {"range": (start, end)}
        if self._tag:
            wanted["if_match"] = self._tag
        with _failing(missing=Reason.OBJECT_NOT_FOUND):
            found = await obstore.get_async(self._store, self._key, options=wanted)
            async for data in found.stream(min_chunk_size=_CHUNK_BYTES):
                for at in range(0, len(data), _CHUNK_BYTES):
                    chunk = bytes(memoryview(data)[at : at + _CHUNK_BYTES])
                    came += len(chunk)
                    yield chunk
        if came != end:
            raise ApiError(Reason.UPSTREAM_FAILED)

    async def close(self) -> None:
        """Lets go of the object."""
        self._store = None

    async def __aenter__(self) -> Self:
        """Returns the object itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the object."""
        await self.close()


class S3Links:
    """Links that lead to the bucket itself, signed for one object and what may be done with it."""

    def __init__(self, settings: S3Settings, public_url: str, credentials: Credentials, *, clock: Clock) -> None:
        self._settings = settings
        self._url = settings.bucket_url(public_url)
        self._credentials = credentials
        self._clock = clock
        self._store = _bucket(settings)

    def download(self, tenant: str, object_id: str, *, expires_at: float) -> str:
        """Returns a link to read an object by."""
        shown = {"response-content-disposition": "inline", "response-cache-control": "private, max-age=300"}
        return self._signed("GET", tenant, object_id, expires_at, query=shown)

    def upload(
        self, tenant: str, object_id: str, headers: Mapping[str, str], *, keep_until: float, expires_at: float
    ) -> tuple[str, dict[str, str]]:
        """Returns a link to write an object by, and all headers that must come with its bytes."""
        bound = {**headers, "If-None-Match": "*", _EXPIRES_HEADER: str(int(keep_until))}
        if self._settings.encryption:
            bound["x-amz-server-side-encryption"] = self._settings.encryption
        if self._settings.kms_key_id:
            bound["x-amz-server-side-encryption-aws-kms-key-id"] = self._settings.kms_key_id
        return self.upload_again(tenant, object_id, bound, expires_at=expires_at), bound

    async def spend(self, tenant: str, object_id: str, *, keep_until: float) -> None:
        """Puts an empty object in the place of another."""
        with _failing():
            await obstore.put_async(
                self._store,
                self._settings.key(tenant, object_id),
                b"",
                attributes=_attributes("application/octet-stream", keep_until),
            )

    def upload_again(self, tenant: str, object_id: str, headers: Mapping[str, str], *, expires_at: float) -> str:
        """Returns such a link with the same headers."""
        return self._signed("PUT", tenant, object_id, expires_at, headers=headers)

    def _signed(
        self,
        method: str,
        tenant: str,
        object_id: str,
        expires_at: float,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> str:
        now = self._clock.now()
        return presigned(
            method,
            f"{self._url}/{self._settings.key(tenant, object_id)}",
            self._credentials,
            region=self._settings.region,
            now=now,
            expires_s=max(1, round(expires_at - now)),
            headers=headers,
            query=query,
        )


def _bucket(settings: S3Settings) -> S3Store:
    options: S3Config = {"region": settings.region, "conditional_put": "etag"}
    if settings.endpoint:
        options["endpoint"] = settings.endpoint
    if settings.credentials:
        options["access_key_id"] = settings.credentials.key_id
        options["secret_access_key"] = settings.credentials.secret
        if settings.credentials.token:
            options["session_token"] = settings.credentials.token
    if settings.encryption:
        options["server_side_encryption"] = settings.encryption
    if settings.kms_key_id:
        options["sse_kms_key_id"] = settings.kms_key_id
    plain = bool(settings.endpoint and settings.endpoint.startswith("http:"))
    return S3Store(
        settings.bucket,
        config=options,
        client_options={"allow_http": plain, "timeout": _TIMEOUT},
        retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
    )


def _attributes(content_type: str, expires_at: float) -> dict[str, str]:
    return {"Content-Type": content_type, _EXPIRES: str(expires_at)}


def _pieces(data: bytes | memoryview) -> Iterator[bytes]:
    view = memoryview(data)
    for at in range(0, len(view), _CHUNK_BYTES):
        yield bytes(view[at : at + _CHUNK_BYTES])


@contextlib.contextmanager
def _failing(missing: Reason = Reason.UPSTREAM_FAILED) -> Iterator[None]:
    """Turns what the library raises into an ApiError; `missing` says what an absent or another object is."""
    try:
        yield
    except (FileNotFoundError, PreconditionError) as error:
        raise ApiError(missing) from _told(error)
    except (BaseError, OSError) as error:
        raise ApiError(Reason.UPSTREAM_FAILED) from _told(error)


def _told(error: Exception) -> OSError:
    """Returns the error as it may be logged: without addresses, and of the answer's body the code alone."""
    text = str(error)
    words = _ADDRESS.sub("…", text.partition("\n")[0].partition("<")[0])
    code = _CODE.search(text)
    return OSError(f"{type(error).__name__}: {words[:_MOST_TOLD].strip()}{f' {code[1]}' if code else ''}")
