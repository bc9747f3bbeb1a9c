"""Jobs against the running service: how soon they are accepted, how fast they go, and whom they delay."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import grpc

from benchmarks.service import Service
from camserve.v1 import inference_pb2, inference_pb2_grpc, jobs_pb2, jobs_pb2_grpc

_CALLERS = 8
_FLOOD_JOB = 256
_PACE_JOB = 32


@dataclass(frozen=True, slots=True)
class Submission:
    """Medians over calls with one small picture, in milliseconds."""

    accepted_ms: float
    finished_ms: float


@dataclass(frozen=True, slots=True)
class Pace:
    """The same pictures as calls, eight at a time, and as jobs; medians of the rounds in seconds, and the ratio."""

    model: str
    pictures: int
    calls_s: float
    job_s: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Delay:
    """A small job of one tenant alone and behind a flood of another's; medians in seconds, and the ratio."""

    flood: int
    alone_s: float
    behind_s: float
    ratio: float


class Batches:
    """Callers of a running service; close it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(service.grpc_target, options=options)
        self._jobs = jobs_pb2_grpc.JobServiceStub(self._channel)
        self._inference = inference_pb2_grpc.InferenceServiceStub(self._channel)

    def close(self) -> None:
        """Hangs up."""
        self._channel.close()

    def submission(self, picture: bytes, model: str, calls: int) -> Submission:
        """Returns how long one small job takes to be accepted, and to end; one at a time."""
        accepted, finished = [], []
        for _ in range(calls):
            started = time.perf_counter()
            job_id = self._create(picture, model, 1, "benchmark")
            accepted.append((time.perf_counter() - started) * 1000)
            self._finished(job_id, "benchmark")
            finished.append((time.perf_counter() - started) * 1000)
        return Submission(median(accepted), median(finished))

    def pace(self, picture: bytes, model: str, pictures: int, rounds: int) -> Pace:
        """Returns how long the pictures take as calls and as jobs of 32, with heatmaps by link, in turns.

        Jobs are submitted one after the other: the next one is received while the last one is worked on.
        """
        calls, jobs = [], []
        for number in range(rounds):
            for way in (0, 1) if number % 2 else (1, 0):
                if way:
                    calls.append(self._as_calls(picture, model, pictures))
                else:
                    jobs.append(self._as_jobs(picture, model, pictures))
        ratios = [one / other for one, other in zip(calls, jobs, strict=True)]
        return Pace(model, pictures, median(calls), median(jobs), median(ratios))

    def delay(self, picture: bytes, model: str, flood: int, rounds: int) -> Delay:
        """Returns how long 10 pictures take, alone and while `flood` pictures of another tenant are queued."""
        self._small_job(picture, model)
        alone = [self._small_job(picture, model) for _ in range(rounds)]
        with self._flooded(picture, model, flood):
            behind = [self._small_job(picture, model) for _ in range(rounds)]
        return Delay(flood, median(alone), median(behind), median(behind) / median(alone))

    def finished_job(self, picture: bytes, model: str, count: int) -> None:
        """Has a job of so many pictures done, with heatmaps by link."""
        self._finished(self._create(picture, model, count, "benchmark", cam=True), "benchmark")

    def _small_job(self, picture: bytes, model: str) -> float:
        started = time.perf_counter()
        self._finished(self._create(picture, model, 10, "small"), "small")
        return time.perf_counter() - started

    @contextmanager
    def _flooded(self, picture: bytes, model: str, flood: int) -> Iterator[None]:
        counts = [_FLOOD_JOB] * (flood // _FLOOD_JOB)
        with ThreadPoolExecutor(4) as pool:
            job_ids = list(pool.map(lambda count: self._create(picture, model, count, "flood"), counts))
        try:
            yield
        finally:
            last = self._jobs.GetJob(jobs_pb2.GetJobRequest(job_id=job_ids[-1]), metadata=self._who("flood"))
            for job_id in reversed(job_ids):
                try:
                    self._jobs.CancelJob(jobs_pb2.CancelJobRequest(job_id=job_id), metadata=self._who("flood"))
                except grpc.RpcError:
                    break
            if last.status != jobs_pb2.Job.queued:
                raise ValueError("the flood was over before the measurement")

    def _as_calls(self, picture: bytes, model: str, pictures: int) -> float:
        request = inference_pb2.InferRequest(
            model=model,
            image=inference_pb2.ImageInput(bytes=picture),
            grad_cam=inference_pb2.GradCAMOptions(enabled=True),
        )
        who = self._who("benchmark")
        started = time.perf_counter()
        with ThreadPoolExecutor(_CALLERS) as pool:
            list(pool.map(lambda _: self._inference.Infer(request, metadata=who, timeout=60), range(pictures)))
        return time.perf_counter() - started

    def _as_jobs(self, picture: bytes, model: str, pictures: int) -> float:
        started = time.perf_counter()
        made = [self._create(picture, model, _PACE_JOB, "benchmark", cam=True) for _ in range(pictures // _PACE_JOB)]
        for job_id in made:
            self._finished(job_id, "benchmark")
        return time.perf_counter() - started

    def _create(self, picture: bytes, model: str, count: int, tenant: str, *, cam: bool = False) -> str:
        request = jobs_pb2.CreateJobRequest(
            model=model,
            inputs=[
                inference_pb2.BatchInput(
                    id=str(number),
                    image=inference_pb2.ImageInput(bytes=picture),
                    grad_cam=inference_pb2.GradCAMOptions(enabled=cam),
                )
                for number in range(count)
            ],
        )
        answer: jobs_pb2.CreateJobResponse = self._jobs.CreateJob(request, metadata=self._who(tenant), timeout=120)
        return answer.job_id

    def _finished(self, job_id: str, tenant: str) -> None:
        last = None
        request = jobs_pb2.WatchJobRequest(job_id=job_id)
        for event in self._jobs.WatchJob(request, metadata=self._who(tenant), timeout=300):
            last = event
        if last is None or last.job.result_summary.failed or last.job.status != jobs_pb2.Job.succeeded:
            raise ValueError(f"the job did not succeed: {last}")

    def _who(self, tenant: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._service.token_of(tenant)}"),)
