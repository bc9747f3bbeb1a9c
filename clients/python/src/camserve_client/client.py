"""The client: one object for one service and one caller."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from camserve_client import batches
from camserve_client.address import parse
from camserve_client.auth import ClientCredentials, FetchedTokens, GivenTokens, TokenSource
from camserve_client.batches import Inputs, ManyInputs
from camserve_client.calls import Calls
from camserve_client.contents import Content, ImageSource, content_of
from camserve_client.convert import result
from camserve_client.gen import health_pb2, jobs_pb2, limits_pb2, methods, models_pb2, uploads_pb2
from camserve_client.grpc_transport import GrpcTransport
from camserve_client.heatmap import Heatmap
from camserve_client.inference import Inference
from camserve_client.jobs import AsyncJob
from camserve_client.links import fetched
from camserve_client.options import Ask, Cam, Placement
from camserve_client.rest_transport import RestTransport
from camserve_client.results import (
    Health,
    InferResult,
    Item,
    JobInfo,
    JobStatus,
    Limits,
    Model,
    PresignedUpload,
    Upload,
)
from camserve_client.retry import Backoff, Retries
from camserve_client.transport import Transport
from camserve_client.uploads import STALLED_AFTER_S, OnProgress, upload
from camserve_client.webhook_calls import AsyncWebhooks

_STABLE = "stable"


class AsyncClient:
    """Calls the service over gRPC (`grpc://`, `grpcs://`, or `host:port`) or REST (`http://`, `https://`).

    The schemes that end in `s` are encrypted; `host:port` alone is gRPC, encrypted unless the host is this machine.
    `transport` chooses the other one at the same place, where an edge speaks both. `token` is a JWT, or a function
    that gives one at every call; `credentials` fetch tokens and renew them in time. `ca_file` (PEM) names the
    authorities to trust instead of the public ones.

    `timeout_s` is the time of a call with all its attempts, 60 s by default; `backoff` says how long to wait between
    those. Reads are tried again, and writes under an idempotency key, which every write gets.

    It is open within `async with`, or from `open` to `close`; connections belong to the event loop in which that was.
    Every method raises CamserveError; what waits when the client is closed, or is called after that, ends with
    `client.closed`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: TokenSource | None = None,
        credentials: ClientCredentials | None = None,
        transport: Literal["grpc", "rest"] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout_s: float = 60.0,
        backoff: Backoff | None = None,
    ) -> None:
        """Raises ValueError for an address that is none, and for a token beside credentials."""
        if token is not None and credentials is not None:
            raise ValueError("a token or credentials, not both")
        self._address = parse(address, transport)
        self._token = token
        self._credentials = credentials
        self._ca_file = Path(ca_file) if ca_file is not None else None
        self._timeout_s = timeout_s
        self._backoff = backoff or Backoff()
        self._calls: Calls | None = None

    async def open(self) -> Self:
        """Begins, as `async with` does; the same client may be opened again after it was closed.

        Raises RuntimeError for one that is open, whose connections would be lost.
        """
        if self._calls and not self._calls.lifetime.over:
            raise RuntimeError("the client is open already")
        transport: Transport
        retries = Retries(self._backoff)
        if self._address.transport == "grpc":
            transport = GrpcTransport(self._address.target, tls=self._address.tls, ca_file=self._ca_file)
        else:
            transport = RestTransport(self._address.url, ca_file=self._ca_file)
        if self._credentials is None:
            tokens: GivenTokens | FetchedTokens = GivenTokens(self._token, retries.lifetime)
        else:
            tokens = FetchedTokens(transport, self._credentials, retries)
        self._calls = Calls(transport, tokens, retries, self._timeout_s)
        return self

    async def close(self) -> None:
        """Ends every connection, and what still waits with `client.closed`."""
        if self._calls:
            self._calls.lifetime.end()
            await self._calls.transport.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def webhooks(self) -> AsyncWebhooks:
        """Webhooks of the caller's tenant."""
        return AsyncWebhooks(self._entered)

    async def infer(
        self,
        image: ImageSource,
        *,
        model: str,
        version: str = _STABLE,
        top_k: int = 5,
        min_prob: float = 0.0,
        cam: bool | Cam = False,
        longest_side: int | None = None,
        heatmap: Placement = "inline",
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> InferResult:
        """Returns the classes of one image, and its heatmap where `cam` asks for one.

        A small image goes within the message, a larger one as a stream, one above 20 MB by a resumable upload. What
        the service makes a job of is waited for (scope `jobs.read`). `timeout_s` bounds all of it; without, every call
        has the client's time, an upload goes on as long as bytes move, and a job is waited for without end.

        `heatmap="url"` leaves the heatmap behind a link. Raises OSError for a file that cannot be read, TypeError for
        what is no image.
        """
        ask = Ask(top_k=top_k, min_prob=min_prob, cam=cam, longest_side=longest_side)
        asked = Inference(self._entered, model, version, ask, heatmap, idempotency_key, on_progress)
        return await asked.of(image, timeout_s)

    async def infer_batch(
        self,
        inputs: ManyInputs,
        *,
        model: str,
        version: str = _STABLE,
        top_k: int = 5,
        min_prob: float = 0.0,
        cam: bool | Cam = False,
        longest_side: int | None = None,
        heatmap: Placement = "inline",
    ) -> AsyncGenerator[Item]:
        """Yields each image as it is finished, in any order; one that fails is an item with an error.

        `inputs` maps ids to images, or yields images or `Input`s, as many as there are: they are read as they are
        sent. After a broken connection those without an answer are sent again. Raises OSError for a file that
        cannot be read.
        """
        ask = Ask(top_k=top_k, min_prob=min_prob, cam=cam, longest_side=longest_side)
        items = batches.infer_batch(self._entered, inputs, model=model, version=version, ask=ask, placement=heatmap)
        async with aclosing(items):
            async for item in items:
                yield item

    async def submit(
        self,
        inputs: Inputs,
        *,
        model: str,
        version: str = _STABLE,
        top_k: int = 5,
        min_prob: float = 0.0,
        cam: bool | Cam = False,
        longest_side: int | None = None,
        heatmap: Placement = "url",
        metadata: Mapping[str, Any] | None = None,
        ttl_hours: int | None = None,
        callback_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Creates a job of up to 256 images and returns it at once; `inputs` as for `infer_batch`.

        Results are kept `ttl_hours`, 1 to 720, 72 by default. `metadata` is kept with the job; `callback_url` hears of
        its end. Raises OSError for a file that cannot be read.
        """
        ask = Ask(top_k=top_k, min_prob=min_prob, cam=cam, longest_side=longest_side)
        async with aclosing(self._entered.lifetime.each(batches.prepared(inputs))) as prepared:
            images = [one async for one in prepared]
        async with batches.chunk_of(self._entered, images, ask, idempotency_key) as chunk:
            for error in chunk.refused.values():
                raise error
            request = jobs_pb2.CreateJobRequest(
                model=model,
                model_version=version,
                inputs=chunk.inputs,
                ttl_hours=ttl_hours,
                callback_url=callback_url,
            )
            request.response.heatmap = heatmap
            if metadata is not None:
                request.metadata.update(metadata)
            answer = await self._entered.unary(methods.CREATE_JOB, request, key=idempotency_key)
        return self.job(answer.message.job_id)

    def job(self, job_id: str) -> AsyncJob:
        """Returns a job by its id, without asking whether there is one."""
        return AsyncJob(self._entered, job_id)

    async def jobs(
        self,
        *,
        status: JobStatus | None = None,
        model: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> AsyncGenerator[JobInfo]:
        """Yields jobs, the newest first; times without a zone are UTC."""
        cursor = ""
        while True:
            request = jobs_pb2.ListJobsRequest(status=status or "", model=model or "", cursor=cursor, limit=200)
            if created_after is not None:
                request.created_after.FromDatetime(created_after)
            if created_before is not None:
                request.created_before.FromDatetime(created_before)
            page = (await self._entered.unary(methods.LIST_JOBS, request)).message
            for one in page.jobs:
                yield result(JobInfo, one)
            cursor = page.page.next_cursor
            if not cursor:
                return

    async def upload(
        self,
        image: ImageSource,
        *,
        media_type: str | None = None,
        content_md5: str | None = None,
        resume: str | None = None,
        idempotency_key: str | None = None,
        stalled_after_s: float = STALLED_AFTER_S,
        on_progress: OnProgress | None = None,
    ) -> Upload:
        """Stores an image, to be used as `StorageId(upload.storage_id)`.

        Above 4 MiB it goes in pieces of 8 MiB, and goes on where a broken connection left it, in memory of no more than
        chunks of 256 KiB; `stalled_after_s` without a piece ends it. `resume` goes on with an earlier one, by the
        `storage_id` that `on_progress` was told; it must be of the same image (ValueError for another size).
        `content_md5` is base64. Raises OSError for a file that cannot be read.
        """
        async with self._entered.lifetime.waiting():
            content = await content_of(image)
        if not isinstance(content, Content):
            raise TypeError("what is uploaded is bytes, a file or a picture")
        try:
            return await upload(
                self._entered,
                content,
                media_type=media_type,
                content_md5=content_md5,
                on_progress=on_progress,
                resume=resume,
                key=idempotency_key,
                stalled_after_s=stalled_after_s,
            )
        finally:
            content.close()

    async def get_upload(self, storage_id: str) -> Upload:
        """Returns what is known of an upload."""
        answer = await self._entered.unary(methods.GET_UPLOAD, uploads_pb2.GetUploadRequest(storage_id=storage_id))
        return result(Upload, answer.message)

    async def delete_upload(self, storage_id: str) -> None:
        """Removes an upload, also one of which a part has come."""
        await self._entered.unary(methods.DELETE_UPLOAD, uploads_pb2.DeleteUploadRequest(storage_id=storage_id))

    async def presign_upload(
        self,
        *,
        media_type: Literal["image/jpeg", "image/png", "image/tiff", "image/bmp"],
        size_bytes: int,
        content_md5: str | None = None,
        idempotency_key: str | None = None,
    ) -> PresignedUpload:
        """Returns a link that takes one image from somebody without a token."""
        request = uploads_pb2.PresignUploadRequest(
            media_type=media_type, size_bytes=size_bytes, content_md5=content_md5
        )
        answer = await self._entered.unary(methods.PRESIGN_UPLOAD, request, key=idempotency_key)
        return result(PresignedUpload, answer.message)

    async def fetch(self, heatmap: Heatmap) -> Heatmap:
        """Returns a heatmap with its data, fetched from its link where need be."""
        return await fetched(self._entered, heatmap)

    async def models(self) -> tuple[Model, ...]:
        """Returns every model, by name."""
        answer = await self._entered.unary(methods.LIST_MODELS, models_pb2.ListModelsRequest())
        return tuple(result(Model, one) for one in answer.message.models)

    async def model(self, name: str, *, full: bool = False) -> Model:
        """Returns one model; `full` adds the labels."""
        request = models_pb2.GetModelRequest(model=name, view="full" if full else "basic")
        return result(Model, (await self._entered.unary(methods.GET_MODEL, request)).message)

    async def limits(self) -> Limits:
        """Returns what the caller's tenant may do, and how much of it is used."""
        answer = await self._entered.unary(methods.GET_LIMITS, limits_pb2.GetLimitsRequest())
        return result(Limits, answer.message)

    async def health(self) -> Health:
        """Returns the state of the replica that answers; needs no token."""
        answer = await self._entered.unary(methods.GET_HEALTH, health_pb2.GetHealthRequest())
        return result(Health, answer.message)

    @property
    def _entered(self) -> Calls:
        if self._calls is None:
            raise RuntimeError("the client is not open: enter it by `with` or `async with`, or call `open`")
        return self._calls
