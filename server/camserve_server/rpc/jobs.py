"""JobService: many images in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from google.protobuf import timestamp_pb2

from camserve.v1 import inference_pb2
from camserve.v1 import jobs_pb2 as pb
from camserve.v1.models_pb2 import Page
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.job_intake import DEFAULT_TTL_HOURS, JobIntake, JobRequest
from camserve_server.core.jobs import LATEST_MS, MUCH_BYTES, PAGE_LIMIT_BYTES, Item, JobFilter, JobService
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.core.stored_results import stored_error
from camserve_server.core.webhooks import WebhookService
from camserve_server.rpc.answers import accepted, batch_result, timestamp
from camserve_server.rpc.batch_inputs import batch_inputs
from camserve_server.rpc.call import Call, checks_itself
from camserve_server.rpc.ending import deprecation_headers
from camserve_server.rpc.heartbeats import with_heartbeats
from camserve_server.rpc.images import Images
from camserve_server.rpc.job_metadata import MetadataReader, Turns, fill_metadata
from camserve_server.rpc.status import error_object
from camserve_server.stores.jobs import JobRecord

DEFAULT_PAGE = 50
# What a Timestamp may say: the years 1 to 9999.
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799


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
        self._metadata = MetadataReader()
        self._listing = Turns()

    @checks_itself
    async def create_job(self, call: Call, request: pb.CreateJobRequest) -> pb.CreateJobResponse:
        """Accepts a job."""
        tenant = call.identity.tenant
        callback_url = request.callback_url if request.HasField("callback_url") else None
        if callback_url is not None:
            self._webhooks.check_url(callback_url)
        receipt = await self._intake.create(
            tenant,
            JobRequest(
                batch_inputs(call, self._images, request),
                metadata=await self._metadata.read(tenant, request.metadata) if request.HasField("metadata") else None,
                ttl_hours=request.ttl_hours if request.HasField("ttl_hours") else DEFAULT_TTL_HOURS,
                callback_url=callback_url,
            ),
            nonce=call.nonce,
            checked=call.checked,
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
        after, before = request.created_after, request.created_before
        chosen = JobFilter(
            status=request.status,
            model=request.model,
            created_after_ms=_milliseconds(after, "created_after") if request.HasField("created_after") else 0,
            created_before_ms=(
                _milliseconds(before, "created_before") if request.HasField("created_before") else LATEST_MS
            ),
        )
        tenant = call.identity.tenant
        answer = pb.ListJobsResponse()
        size_bytes = 0
        # A page of much metadata takes 30 ms: others run in between, and not behind all pages of one tenant.
        async with self._listing.of(tenant):
            jobs, cursor = await self._jobs.page(tenant, chosen, cursor=request.cursor, limit=_limit(request))
            for at, job in enumerate(jobs):
                message = self._job(call, job)
                job_bytes = message.ByteSize()
                size_bytes += job_bytes
                if at and size_bytes > PAGE_LIMIT_BYTES:
                    cursor = self._jobs.after(tenant, chosen, jobs[at - 1])
                    break
                answer.jobs.append(message)
                if job_bytes > MUCH_BYTES:
                    await asyncio.sleep(0)
        answer.page.CopyFrom(Page(next_cursor=cursor, size=len(answer.jobs)))
        return answer

    async def get_job(self, call: Call, request: pb.GetJobRequest) -> pb.Job:
        """Returns one job, with its result if it has one image."""
        job = await self._jobs.get(call.identity.tenant, request.job_id)
        self._note_end(call, job.model, job.model_version)
        return await self._whole_job(call, job)

    async def list_job_results(self, call: Call, request: pb.ListJobResultsRequest) -> pb.ListJobResultsResponse:
        """Lists the images of a job."""
        tenant = call.identity.tenant
        page = pb.ListJobResultsResponse()
        # Heatmaps are read here, which may take the store a while: outside of the turn.
        items, cursor = await self._jobs.results(tenant, request.job_id, cursor=request.cursor, limit=_limit(request))
        # As above: a page of images with all of their classes takes longer still.
        async with self._listing.of(tenant):
            for item in items:
                message = _item(call, item)
                page.items.append(message)
                if message.ByteSize() > MUCH_BYTES:
                    await asyncio.sleep(0)
        if answer := next((outcome.result for _, outcome in items if outcome and outcome.result), None):
            self._note_end(call, answer.model, answer.model_version)
        page.page.CopyFrom(Page(next_cursor=cursor, size=len(items)))
        return page

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
                        yield pb.JobEvent(event=inference_pb2.StreamEvent.status, job=self._job(call, change.job))
        except ApiError as error:
            yield pb.JobEvent(event=inference_pb2.StreamEvent.error, error=error_object(error, call.request_id))

    async def cancel_job(self, call: Call, request: pb.CancelJobRequest) -> pb.Job:
        """Cancels a job."""
        return self._job(call, await self._jobs.cancel(call.identity.tenant, request.job_id))

    def _note_end(self, call: Call, model: str, version: str) -> None:
        """Has the answer say when the version ends that gave it."""
        if ends := self._routes.deprecation(model, version):
            call.headers |= deprecation_headers(ends)

    async def _whole_job(self, call: Call, job: JobRecord) -> pb.Job:
        """Returns a job with its result, if it had one image."""
        message = self._job(call, job)
        if job.status != "succeeded" or job.items > 1:
            return message
        item = await self._jobs.item(call.identity.tenant, job, 0)
        if item and item[1] and item[1].result:
            message.result.CopyFrom(batch_result(item[1].result))
        return message

    def _job(self, call: Call, job: JobRecord) -> pb.Job:
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
            fill_metadata(message.metadata, job.metadata)
        if job.error is not None:
            message.error.CopyFrom(error_object(stored_error(job.error), call.request_id))
        return message


def _item(call: Call, item: Item) -> pb.JobItem:
    record, outcome = item
    message = pb.JobItem(id=record.id, status=pb.Job.Status.Value(record.status))
    if outcome and outcome.result:
        message.result.CopyFrom(batch_result(outcome.result))
    if outcome and outcome.error:
        message.error.CopyFrom(error_object(outcome.error, call.request_id))
    return message


def _limit(request: pb.ListJobsRequest | pb.ListJobResultsRequest) -> int:
    return request.limit if request.HasField("limit") else DEFAULT_PAGE


def _milliseconds(time: timestamp_pb2.Timestamp, field: str) -> int:
    if not _FIRST_S <= time.seconds <= _LAST_S or not 0 <= time.nanos < 1_000_000_000:
        raise ApiError(Reason.PARAM_INVALID, field=field)
    # Rounded up: a job of the same millisecond is neither lost nor listed twice at a boundary.
    return max(0, time.seconds * 1000 - (-time.nanos // 1_000_000))
