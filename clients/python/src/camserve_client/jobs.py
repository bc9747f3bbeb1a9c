"""A job: many images in the background, followed as a stream or by asking."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from camserve_client.calls import Calls
from camserve_client.convert import result
from camserve_client.errors import ANSWER_INVALID, CONNECTION_FAILED, CamserveError
from camserve_client.gen import inference_pb2, methods
from camserve_client.gen import jobs_pb2 as pb
from camserve_client.refusals import of_object
from camserve_client.results import Item, JobInfo
from camserve_client.retry import Tries

_PAGE = 200
_STATUS = inference_pb2.StreamEvent.status
_DONE = inference_pb2.StreamEvent.done
_FINAL = (pb.Job.succeeded, pb.Job.failed, pb.Job.canceled, pb.Job.expired)
OnInfo = Callable[[JobInfo], None]


class AsyncJob:
    """A job that was accepted, by its `id`. It goes on whatever becomes of this object."""

    def __init__(self, calls: Calls, job_id: str) -> None:
        self._calls = calls
        self.id = job_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def info(self) -> JobInfo:
        """Returns the job as it is now; raises CamserveError(job.not_found)."""
        answer = await self._calls.unary(methods.GET_JOB, pb.GetJobRequest(job_id=self.id))
        return result(JobInfo, answer.message)

    async def wait(self, *, timeout_s: float | None = None, on_info: OnInfo | None = None) -> JobInfo:
        """Returns the job once it has ended, one way or another; `on_info` is told of every change of its state.

        Follows the stream of its events, and asks now and then where no stream comes through. Raises CamserveError:
        `timeout.exceeded` after `timeout_s` (None waits without end, also for a service that is away, once it has
        answered), `job.not_found`.
        """
        async with aclosing(self._events(self._calls.retries.started(timeout_s))) as events:
            async for event in events:
                if event.HasField("job"):
                    info = result(JobInfo, event.job)
                    if on_info:
                        on_info(info)
                    if event.event == _DONE:
                        return info
        raise CamserveError(ANSWER_INVALID, "The job's events have no end.")

    async def watch(self, *, timeout_s: float | None = None) -> AsyncGenerator[Item]:
        """Yields every image as it is finished, those already finished first, each once, until the job has ended.

        Raises as `wait` does.
        """
        seen: set[str] = set()
        async with aclosing(self._events(self._calls.retries.started(timeout_s))) as events:
            async for event in events:
                if event.HasField("item") and event.item.id not in seen:
                    seen.add(event.item.id)
                    yield result(Item, event.item)
                counts = event.job.result_summary
                if event.event == _DONE and len(seen) < counts.succeeded + counts.failed:
                    # Heard by asking: the stream, which tells of every image, did not come to its end.
                    async for item in self.results():
                        if item.id not in seen and (item.result or item.error):
                            yield item

    async def results(self) -> AsyncGenerator[Item]:
        """Yields every image in the order of the request, finished or not.

        Raises CamserveError(job.results_expired) when the time of the job is over.
        """
        cursor = ""
        while True:
            request = pb.ListJobResultsRequest(job_id=self.id, cursor=cursor, limit=_PAGE)
            page = (await self._calls.unary(methods.LIST_JOB_RESULTS, request)).message
            for item in page.items:
                yield result(Item, item)
            cursor = page.page.next_cursor
            if not cursor:
                return

    async def cancel(self) -> JobInfo:
        """Cancels the job and returns it; raises CamserveError(job.already_completed) when it ended otherwise."""
        answer = await self._calls.unary(methods.CANCEL_JOB, pb.CancelJobRequest(job_id=self.id))
        return result(JobInfo, answer.message)

    async def _events(self, tries: Tries) -> AsyncGenerator[pb.JobEvent]:
        """Yields events over as many streams as it takes; after a broken one, what the job is when asked."""
        request = pb.WatchJobRequest(job_id=self.id)
        answered = False
        while True:
            try:
                stream: Any = self._calls.stream(methods.WATCH_JOB, request, timeout_s=tries.left_s)
                async with aclosing(stream) as events:
                    async for event in events:
                        answered = True
                        if event.HasField("error"):
                            raise of_object(event.error)
                        tries.forget()
                        yield event
                        if event.event == _DONE:
                            return
                broken = CamserveError(CONNECTION_FAILED, "The stream ended early.")
            except CamserveError as error:
                broken = error
            # An answer that is no stream may come from something between that lets none through.
            if broken.code == ANSWER_INVALID:
                broken = CamserveError(CONNECTION_FAILED, broken.message)
            await tries.pause_after(broken)
            try:
                info = await self._calls.unary(
                    methods.GET_JOB, pb.GetJobRequest(job_id=self.id), timeout_s=tries.left_s
                )
            except CamserveError as error:
                # Of a service that never answered the address is wrong, more likely.
                if not (answered and error.retryable):
                    raise
                await tries.pause_after(error)
                continue
            answered = True
            final = info.message.status in _FINAL
            yield pb.JobEvent(event=_DONE if final else _STATUS, job=info.message)
            if final:
                return
