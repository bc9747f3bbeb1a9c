"""JobService: many images in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
from google.protobuf import json_format, struct_pb2, timestamp_pb2

from camserve.v1 import inference_pb2
from camserve.v1 import jobs_pb2 as pb
from camserve.v1.models_pb2 import Page
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.job_intake import DEFAULT_TTL_HOURS, METADATA_LIMIT_BYTES, JobIntake, JobRequest
from camserve_server.core.jobs import LATEST_MS, Item, JobFilter, JobService
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.core.webhooks import WebhookService
from camserve_server.rpc.answers import accepted, batch_result, timestamp
from camserve_server.rpc.batch_inputs import batch_inputs
from camserve_server.rpc.call import Call
from camserve_server.rpc.ending import deprecation_headers
from camserve_server.rpc.heartbeats import with_heartbeats
from camserve_server.rpc.images import Images
from camserve_server.rpc.status import error_object
from camserve_server.stores.jobs import JobRecord

DEFAULT_PAGE = 50
# Above this a double does not tell whole numbers apart.
_MOST_EXACT = 2.0**53
# As a message, a list of numbers of one digit takes the most: 11 bytes for the two of a digit and its comma.
_MOST_OF_JSON = 6
_LARGE_METADATA_BYTES = 2048


class JobServicer:
    """Converts between messages and the rules in core/jobs; `prefix` begins every link."""

    def __init__(
        self,
        intake: JobIntake,
        jobs: JobService,
        images: Images,
        webhooks: WebhookService,
        routes: ModelRoutes,
        *,
        prefix: str,
    ) -> None:
        self._intake = intake
        self._jobs = jobs
        self._images = images
        self._webhooks = webhooks
        self._routes = routes
        self._prefix = prefix
        self._converting = asyncio.Lock()

    async def create_job(self, call: Call, request: pb.CreateJobRequest) -> pb.CreateJobResponse:
        """Accepts a job."""
        callback_url = request.callback_url if request.HasField("callback_url") else None
        if callback_url is not None:
            self._webhooks.check_url(callback_url)
        receipt = await self._intake.create(
            call.identity.tenant,
            JobRequest(
                batch_inputs(call, self._images, request),
                metadata=await self._metadata(request.metadata) if request.HasField("metadata") else None,
                ttl_hours=request.ttl_hours if request.HasField("ttl_hours") else DEFAULT_TTL_HOURS,
                callback_url=callback_url,
            ),
            nonce=call.nonce,
        )
        accepted(call, self._prefix, receipt.job_id)
        return pb.CreateJobResponse(
            job_id=receipt.job_id,
            status=pb.Job.queued,
            counts=inference_pb2.JobCounts(submitted=receipt.submitted),
            estimated_wait_ms=receipt.estimated_wait_ms,
            request_id=call.request_id,
        )

    async def list_jobs(self, call: Call, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        """Lists jobs, the newest first."""
        chosen = JobFilter(
            status=request.status,
            model=request.model,
            created_after_ms=_milliseconds(request.created_after) if request.HasField("created_after") else 0,
            created_before_ms=(
                _milliseconds(request.created_before) if request.HasField("created_before") else LATEST_MS
            ),
        )
        jobs, cursor = await self._jobs.page(call.identity.tenant, chosen, cursor=request.cursor, limit=_limit(request))
        answer = pb.ListJobsResponse(page=Page(next_cursor=cursor, size=len(jobs)))
        for job in jobs:
            answer.jobs.append(await self._job(call, job))
        return answer

    async def get_job(self, call: Call, request: pb.GetJobRequest) -> pb.Job:
        """Returns one job, with its result if it has one image."""
        job = await self._jobs.get(call.identity.tenant, request.job_id)
        self._note_end(call, job.model, job.model_version)
        return await self._whole_job(call, job)

    async def list_job_results(self, call: Call, request: pb.ListJobResultsRequest) -> pb.ListJobResultsResponse:
        """Lists the images of a job."""
        items, cursor = await self._jobs.results(
            call.identity.tenant, request.job_id, cursor=request.cursor, limit=_limit(request)
        )
        if answer := next((outcome.result for _, outcome in items if outcome and outcome.result), None):
            self._note_end(call, answer.model, answer.model_version)
        return pb.ListJobResultsResponse(
            items=[_item(call, item) for item in items], page=Page(next_cursor=cursor, size=len(items))
        )

    async def watch_job(self, call: Call, request: pb.WatchJobRequest) -> AsyncIterator[pb.JobEvent]:
        """Yields an event per change, heartbeats in between, and `done` or `error` at the end."""
        tenant = call.identity.tenant
        job = await self._jobs.get(tenant, request.job_id)
        self._note_end(call, job.model, job.model_version)
        try:
            async with (
                aclosing(self._jobs.watch(tenant, request.job_id)) as changes,
                # Closed first: it waits on the other one.
                aclosing(with_heartbeats(changes)) as beating,
            ):
                async for change in beating:
                    if change is None:
                        yield pb.JobEvent(event=inference_pb2.StreamEvent.heartbeat)
                    elif change.item:
                        yield pb.JobEvent(event=inference_pb2.StreamEvent.item, item=_item(call, change.item))
                    elif change.last:
                        done = await self._whole_job(call, change.job)
                        yield pb.JobEvent(event=inference_pb2.StreamEvent.done, job=done, summary=done.result_summary)
                    else:
                        yield pb.JobEvent(event=inference_pb2.StreamEvent.status, job=await self._job(call, change.job))
        except ApiError as error:
            yield pb.JobEvent(event=inference_pb2.StreamEvent.error, error=error_object(error, call.request_id))

    async def cancel_job(self, call: Call, request: pb.CancelJobRequest) -> pb.Job:
        """Cancels a job."""
        return await self._job(call, await self._jobs.cancel(call.identity.tenant, request.job_id))

    def _note_end(self, call: Call, model: str, version: str) -> None:
        """Has the answer say when the version ends that gave it."""
        if ends := self._routes.deprecation(model, version):
            call.headers |= deprecation_headers(ends)

    async def _whole_job(self, call: Call, job: JobRecord) -> pb.Job:
        """Returns a job with what is known from its items: the only result, or why it failed."""
        message = await self._job(call, job)
        if job.status not in ("succeeded", "failed") or (job.items > 1 and job.status == "succeeded"):
            return message
        item = await self._jobs.item(call.identity.tenant, job, 0)
        if item and item[1] and item[1].result:
            message.result.CopyFrom(batch_result(item[1].result))
        if item and item[1] and item[1].error:
            message.error.CopyFrom(error_object(item[1].error, call.request_id))
        return message

    async def _job(self, call: Call, job: JobRecord) -> pb.Job:
        message = pb.Job(
            job_id=job.job_id,
            status=pb.Job.Status.Value(job.status),
            submitted_at=timestamp(job.submitted_ms),
            expires_at=timestamp(job.expires_ms),
            model=job.model,
            model_version=job.model_version,
            result_summary=pb.JobSummary(items=job.items, succeeded=job.succeeded, failed=job.failed),
            results_url=f"{self._prefix}/v1/jobs/{job.job_id}/results",
        )
        if job.started_ms is not None:
            message.started_at.CopyFrom(timestamp(job.started_ms))
        if job.completed_ms is not None:
            message.completed_at.CopyFrom(timestamp(job.completed_ms))
        if job.metadata is not None:
            message.metadata.SetInParent()
            async with self._turn(len(job.metadata)):
                message.metadata.update(orjson.loads(job.metadata))
        return message

    async def _metadata(self, metadata: struct_pb2.Struct) -> bytes:
        size = metadata.ByteSize()
        if size > _MOST_OF_JSON * METADATA_LIMIT_BYTES:
            raise ApiError(Reason.PARAM_OUT_OF_RANGE, field="metadata", maximum_bytes=METADATA_LIMIT_BYTES)
        async with self._turn(size):
            try:
                return orjson.dumps(_plain(json_format.MessageToDict(metadata)), option=orjson.OPT_SORT_KEYS)
            except (json_format.SerializeToJsonError, orjson.JSONEncodeError, ValueError):
                # A native caller may have put in a number that JSON does not know; protobuf raises a plain ValueError.
                raise ApiError(Reason.PARAM_INVALID, field="metadata") from None

    @asynccontextmanager
    async def _turn(self, metadata_bytes: int) -> AsyncIterator[None]:
        """Large metadata are converted in turn: 16 KB may take 20 ms, in which nobody is served, and as long after."""
        if metadata_bytes < _LARGE_METADATA_BYTES:
            yield
            return
        async with self._converting:
            started = time.perf_counter()
            try:
                yield
            finally:
                await asyncio.sleep(time.perf_counter() - started)


def _item(call: Call, item: Item) -> pb.JobItem:
    record, outcome = item
    message = pb.JobItem(id=record.id, status=pb.Job.Status.Value(record.status))
    if outcome and outcome.result:
        message.result.CopyFrom(batch_result(outcome.result))
    if outcome and outcome.error:
        message.error.CopyFrom(error_object(outcome.error, call.request_id))
    return message


def _plain(value: Any) -> Any:
    """Returns a value of JSON with its whole numbers written without a point, as they were sent."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _MOST_EXACT else value


def _limit(request: pb.ListJobsRequest | pb.ListJobResultsRequest) -> int:
    return request.limit if request.HasField("limit") else DEFAULT_PAGE


def _milliseconds(time: timestamp_pb2.Timestamp) -> int:
    # Rounded up: a job of the same millisecond is neither lost nor listed twice at a boundary.
    return max(0, time.seconds * 1000 - (-time.nanos // 1_000_000))
