"""Jobs taken in: checked, their images stored, and on the disk before they are acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from camserve_server.base import tracing
from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import derived_id, new_id
from camserve_server.base.tasks import ended
from camserve_server.core.infer import InferService, check_inputs
from camserve_server.core.infer_options import BatchInput, ImageSource
from camserve_server.core.stored_results import encode_options
from camserve_server.core.warm_inputs import WarmInputs
from camserve_server.stores.jobs import Jobs, Metadata, NewItem, NewJob
from camserve_server.stores.objects import ObjectStore, discard
from camserve_server.stores.pressure import Pressure

DEFAULT_TTL_HOURS = 72
METADATA_LIMIT_BYTES = 16 * 1024
# Before anything was measured: what an item takes on a small machine.
_ASSUMED_ITEM_MS = 200.0
# Inputs outlive their job a little, so that a worker at the very end finds its image.
_SLACK_S = 60.0
_STORED_AT_ONCE = 4
# A worker of this process begins when the answer is out, for which its own work would not leave the event loop.
_ANSWERED_S = 0.002


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What is asked for; every option names the same model and version.

    An image with a URL is fetched when its turn comes, any other is stored with the job.
    """

    inputs: Sequence[BatchInput]
    metadata: Metadata | None = None
    ttl_hours: int = DEFAULT_TTL_HOURS
    callback_url: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """An accepted job."""

    job_id: str
    model: str
    model_version: str
    submitted: int
    estimated_wait_ms: int


async def _unchecked() -> None:
    """Checks nothing."""


class JobIntake:
    """Accepts jobs."""

    def __init__(
        self,
        jobs: Jobs,
        infer: InferService,
        objects: ObjectStore,
        warm: WarmInputs,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._warm = warm
        self._infer = infer
        self._objects = objects
        self._clock = clock
        self._discards: set[asyncio.Task[None]] = set()
        self.on_accept: Callable[[], None] = lambda: None
        """Is called soon after each accepted job, so that a worker of this process need not wait to look."""

    async def create(
        self,
        tenant: str,
        request: JobRequest,
        *,
        nonce: str | None = None,
        checked: Callable[[], Awaitable[None]] = _unchecked,
    ) -> Receipt:
        """Accepts a job; once this returns, it is on the disk.

        `nonce` makes a second call with the same one the same job. `checked` is awaited before the job is made, and
        raises where it must not be. Raises ApiError: BATCH_*, MODEL_*, PARAM_*, what opening an input raises, what
        `checked` raises, UPSTREAM_FAILED, STORE_UNAVAILABLE.
        """
        self._check(request)
        job_id = derived_id("job", nonce) if nonce else new_id("job")
        version = self._infer.validate(request.inputs[0].options)
        ttl_s = request.ttl_hours * 3600
        object_ids: list[str] = []
        try:
            items = await self._store(tenant, request.inputs, version.version, ttl_s + _SLACK_S, object_ids)
            await checked()
        except BaseException:
            self._discard(tenant, object_ids)
            raise
        job = NewJob(
            job_id,
            version.name,
            version.version,
            ttl_s * 1000,
            request.metadata,
            items,
            request.callback_url,
            trace=tracing.traceparent(),
        )
        # Where this fails the job may have been accepted all the same: then it needs its inputs.
        submitted = await self._jobs.submit(tenant, job)
        answering = version.version
        if not submitted.accepted:
            self._discard(tenant, object_ids)
            # An attempt before this one made the job, by the routes of then.
            if made := await self._jobs.get(tenant, job_id):
                answering = made.model_version
        asyncio.get_running_loop().call_later(_ANSWERED_S, self.on_accept)
        return Receipt(job_id, version.name, answering, len(items), _wait_ms(submitted.pressure))

    def _discard(self, tenant: str, object_ids: list[str]) -> None:
        """Deletes inputs that no job has, in a task of its own, because the call may be one that is being canceled."""
        for object_id in object_ids:
            self._warm.drop(object_id)
        task = asyncio.create_task(discard(self._objects, tenant, object_ids))
        self._discards.add(task)
        task.add_done_callback(self._discards.discard)

    def _check(self, request: JobRequest) -> None:
        check_inputs([entry.id for entry in request.inputs])
        if request.metadata and len(request.metadata.json) > METADATA_LIMIT_BYTES:
            raise ApiError(Reason.PARAM_OUT_OF_RANGE, field="metadata", maximum_bytes=METADATA_LIMIT_BYTES)
        self._infer.validate_each(request.inputs)

    async def _store(
        self, tenant: str, inputs: Sequence[BatchInput], version: str, keep_s: float, object_ids: list[str]
    ) -> list[NewItem]:
        gate = asyncio.Semaphore(_STORED_AT_ONCE)
        expires_at = self._clock.now() + keep_s
        uses = Counter(entry.image.storage_id for entry in inputs if entry.image.storage_id is not None)
        shared: dict[str, asyncio.Task[str]] = {}

        async def put(source: ImageSource) -> str:
            async with gate:
                with await source.open() as image:
                    object_id = await self._objects.put(
                        tenant,
                        image.view(),
                        content_type="application/octet-stream",
                        expires_at=expires_at,
                    )
                    self._warm.keep(object_id, image)
            object_ids.append(object_id)
            return object_id

        async def store(entry: BatchInput) -> NewItem:
            spec: dict[str, Any] = {"options": encode_options(replace(entry.options, model_version=version))}
            upload = entry.image.storage_id
            if entry.image.url is not None:
                spec["url"] = entry.image.url
            elif upload is None or uses[upload] == 1:
                spec["object_id"] = await put(entry.image)
            else:
                # Stored once for all inputs that name it, and kept as long as the job.
                shared[upload] = shared.get(upload) or asyncio.create_task(put(entry.image))
                spec |= {"object_id": await shared[upload], "shared": True}
            return NewItem(entry.id, orjson.dumps(spec))

        tasks = [asyncio.create_task(store(entry)) for entry in inputs]
        try:
            items = list(await asyncio.gather(*tasks))
            await self._objects.sync(tenant, object_ids)
            return items
        finally:
            await ended([*tasks, *shared.values()])


def _wait_ms(pressure: Pressure) -> int:
    # Every tenant with work gets the same share of the workers.
    rate = pressure.items_per_s or 1000 / _ASSUMED_ITEM_MS
    return min(round(pressure.items * max(1, pressure.tenants) / rate * 1000), 2**31 - 1)
