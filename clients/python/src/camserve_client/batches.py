"""Many images: what fits goes within the request, what is large is uploaded first."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from camserve_client.calls import Calls
from camserve_client.contents import Content, ImageSource, ImageUrl, StorageId, content_of
from camserve_client.convert import result
from camserve_client.errors import CONNECTION_FAILED, CamserveError
from camserve_client.gen import inference_pb2 as pb
from camserve_client.gen import limits_pb2, methods, uploads_pb2
from camserve_client.links import fetched
from camserve_client.options import Ask, Input, fill
from camserve_client.refusals import of_object
from camserve_client.results import Item
from camserve_client.uploads import upload

Inputs = Mapping[str, ImageSource] | Iterable[Input | ImageSource]
ManyInputs = Inputs | AsyncIterable[Input | ImageSource]

# JSON has 20 MB for all images of a request, which are a third larger in it.
_INLINE_BYTES = 12_000_000
_LARGEST_INLINE_BYTES = 8 << 20
_CHUNK_IMAGES = 64
_UPLOADS_AT_ONCE = 4
_REMOVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image with its id, ready to be sent."""

    id: str
    ask: Ask | None
    content: Content | ImageUrl | StorageId

    @property
    def inline_bytes(self) -> int:
        """How many bytes it takes of a request; 0 where it does not travel within one."""
        size_bytes = self.content.size_bytes if isinstance(self.content, Content) else 0
        return size_bytes if size_bytes <= _LARGEST_INLINE_BYTES else 0


@dataclass(slots=True)
class Chunk:
    """The images of one request in their order, those whose upload failed, and the uploads to be removed after it."""

    key: str | None = None
    inputs: list[pb.BatchInput] = field(default_factory=list)
    refused: dict[str, CamserveError] = field(default_factory=dict)
    uploaded: list[str] = field(default_factory=list)


async def prepared(inputs: ManyInputs) -> AsyncGenerator[Prepared]:
    """Yields each input with its id: that of a mapping or its own, or its place in the sequence, from 0.

    Raises CamserveError(batch.duplicate_id), also where the service, which gets them by and by, would not notice.
    """
    given = (Input(source, name) for name, source in inputs.items()) if isinstance(inputs, Mapping) else inputs
    names: set[str] = set()
    place = 0
    async for one in _each(given):
        whole = one if isinstance(one, Input) else Input(one)
        name = str(place) if whole.id is None else whole.id
        if name in names:
            raise CamserveError("batch.duplicate_id", "Two inputs of a batch have the same id.", status=400)
        names.add(name)
        yield Prepared(name, whole.ask, await content_of(whole.image))
        place += 1


@asynccontextmanager
async def chunk_of(calls: Calls, images: Sequence[Prepared], ask: Ask, key: str | None = None) -> AsyncIterator[Chunk]:
    """Gives the images of one request, and removes what was uploaded for it afterwards: jobs keep their own copy.

    Under a `key` of the caller's own it stays, as the same request names the same uploads again.
    """
    chunk = Chunk(key)
    at_once = asyncio.Semaphore(_UPLOADS_AT_ONCE)
    inline_bytes = 0
    try:
        async with removing(calls, chunk.uploaded):
            async with _together() as group:
                for image in images:
                    message = pb.BatchInput(id=image.id)
                    fill(message, image.ask or ask)
                    chunk.inputs.append(message)
                    content = image.content
                    if isinstance(content, ImageUrl):
                        message.image.url = content.url
                    elif isinstance(content, StorageId):
                        message.image.storage_id = content.storage_id
                    elif content.size_bytes <= min(_LARGEST_INLINE_BYTES, _INLINE_BYTES - inline_bytes):
                        inline_bytes += content.size_bytes
                        message.image.bytes = await content.read(0, content.size_bytes)
                    else:
                        group.create_task(_upload(calls, chunk, message, content, at_once))
            chunk.inputs = [one for one in chunk.inputs if one.id not in chunk.refused]
            yield chunk
    finally:
        for image in images:
            if isinstance(image.content, Content):
                image.content.close()


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Gives tasks that end together, when the first one fails, with what that one raised."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


@asynccontextmanager
async def removing(calls: Calls, uploaded: list[str]) -> AsyncIterator[None]:
    """Removes uploads that were made for one call, once it is over.

    One that stays, because the caller would not wait, goes by itself when its time is over.
    """
    try:
        yield
    except asyncio.CancelledError:
        raise
    except BaseException:
        await _remove(calls, uploaded)
        raise
    await _remove(calls, uploaded)


async def _remove(calls: Calls, uploaded: list[str]) -> None:
    async def one(storage_id: str) -> None:
        request = uploads_pb2.DeleteUploadRequest(storage_id=storage_id)
        with suppress(CamserveError):
            await calls.unary(methods.DELETE_UPLOAD, request, timeout_s=_REMOVAL_S)

    await asyncio.gather(*map(one, uploaded))


async def infer_batch(
    calls: Calls, inputs: ManyInputs, *, model: str, version: str, ask: Ask, placement: str
) -> AsyncGenerator[Item]:
    """Yields each image as it is finished, in any order; takes of `inputs` no more than is on its way."""
    most = await _most_images(calls)
    async with aclosing(calls.lifetime.each(_groups(prepared(inputs), most))) as groups:
        async for group in groups:
            async with chunk_of(calls, group, ask) as chunk:
                for name, error in chunk.refused.items():
                    yield Item(name, "failed", error=error)
                options = pb.InferBatchRequest(model=model, model_version=version)
                options.response.heatmap = placement
                async with aclosing(_answers(calls, options, {one.id: one for one in chunk.inputs})) as items:
                    async for item in items:
                        yield await _whole(calls, item) if placement == "inline" else item


async def _whole(calls: Calls, item: Item) -> Item:
    """Returns an item with the data of its heatmap, also of one too large to come within the stream."""
    if item.result is None or item.result.heatmap is None:
        return item
    heatmap = await fetched(calls, item.result.heatmap)
    return replace(item, result=replace(item.result, heatmap=heatmap))


async def _answers(
    calls: Calls, options: pb.InferBatchRequest, waiting: dict[str, pb.BatchInput]
) -> AsyncGenerator[Item]:
    """Yields the outcome of every input, each once.

    After a broken stream those without one are sent again: a batch takes no key and leaves nothing behind, so to
    classify an image twice harms nobody but the quota.
    """
    tries = calls.retries.started(calls.timeout_s)
    while waiting:
        request = pb.InferBatchRequest(inputs=waiting.values())
        request.MergeFrom(options)
        try:
            async with aclosing(calls.stream(methods.INFER_BATCH, request)) as events:
                async for event in events:
                    if event.HasField("error"):
                        raise of_object(event.error)
                    if event.HasField("item") and waiting.pop(event.item.id, None) is not None:
                        yield result(Item, event.item)
                        # Only now: until then the time was the caller's.
                        tries.restart()
            broken = CamserveError(CONNECTION_FAILED, "The stream ended early.")
        except CamserveError as error:
            broken = error
        if waiting:
            await tries.pause_after(broken)


async def _groups(images: AsyncGenerator[Prepared], most: int) -> AsyncGenerator[list[Prepared]]:
    """Yields as many images as one request takes, by their number and by their bytes."""
    group: list[Prepared] = []
    inline_bytes = 0
    async with aclosing(images):
        async for image in images:
            if len(group) == most or (group and inline_bytes + image.inline_bytes > _INLINE_BYTES):
                yield group
                group, inline_bytes = [], 0
            group.append(image)
            inline_bytes += image.inline_bytes
    if group:
        yield group


async def _most_images(calls: Calls) -> int:
    limits = await calls.unary(methods.GET_LIMITS, limits_pb2.GetLimitsRequest())
    return max(1, min(_CHUNK_IMAGES, limits.message.max_batch_size))


async def _upload(
    calls: Calls, chunk: Chunk, message: pb.BatchInput, content: Content, at_once: asyncio.Semaphore
) -> None:
    async with at_once:
        try:
            stored = await upload(calls, content, key=_key_of(chunk.key, message.id))
        except CamserveError as error:
            chunk.refused[message.id] = error
        else:
            if chunk.key is None:
                chunk.uploaded.append(stored.storage_id)
            message.image.storage_id = stored.storage_id


def _key_of(key: str | None, name: str) -> str | None:
    """Returns the key of one image's upload: each image of a request has its own."""
    return key and hashlib.sha256(f"{key} {name}".encode()).hexdigest()


async def _each(
    inputs: Iterable[Input | ImageSource] | AsyncIterable[Input | ImageSource],
) -> AsyncIterator[Input | ImageSource]:
    if isinstance(inputs, AsyncIterable):
        async for one in inputs:
            yield one
    else:
        for one in inputs:
            yield one
