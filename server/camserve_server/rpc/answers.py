"""Answers for images as messages."""

from __future__ import annotations

from google.protobuf import timestamp_pb2

from camserve.v1 import inference_pb2 as pb
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer_result import BatchOutcome, Heatmap, InferResult, Timings
from camserve_server.core.job_intake import Receipt
from camserve_server.rpc.call import Call
from camserve_server.rpc.status import error_object


def infer_response(call: Call, result: InferResult) -> pb.InferResponse:
    """Returns the answer to a call for one image."""
    return pb.InferResponse(
        request_id=call.request_id,
        model=result.model,
        model_version=result.model_version,
        labels_version=result.labels_version,
        calibration_version=result.calibration_version,
        timings_ms=_timings(result.timings),
        image=_image(result),
        classes=_classes(result),
        heatmap=_heatmap(result.heatmap) if result.heatmap else None,
        content_sha256=result.content_sha256,
    )


def infer_receipt(call: Call, receipt: Receipt, prefix: str) -> pb.InferResponse:
    """Returns the answer to a call for one image that became a job; links begin with `prefix`."""
    accepted(call, prefix, receipt.job_id)
    if call.prefers_async:
        call.headers["preference-applied"] = "respond-async"
    return pb.InferResponse(
        request_id=call.request_id,
        model=receipt.model,
        model_version=receipt.model_version,
        job_id=receipt.job_id,
        status=pb.InferResponse.queued,
        counts=pb.JobCounts(submitted=receipt.submitted),
        estimated_wait_ms=receipt.estimated_wait_ms,
    )


def accepted(call: Call, prefix: str, job_id: str) -> None:
    """Makes the answer a 202 that says where the job is."""
    call.headers["location"] = f"{prefix}/v1/jobs/{job_id}"
    call.http_code = 202


def timestamp(milliseconds: int) -> timestamp_pb2.Timestamp:
    """Returns unix time in milliseconds as a message."""
    return timestamp_pb2.Timestamp(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def batch_item(call: Call, outcome: BatchOutcome) -> pb.BatchItem:
    """Returns one image's outcome."""
    if outcome.result is None:
        error = outcome.error or ApiError(Reason.INTERNAL)
        return pb.BatchItem(id=outcome.id, status=pb.BatchItem.failed, error=error_object(error, call.request_id))
    return pb.BatchItem(id=outcome.id, status=pb.BatchItem.succeeded, result=batch_result(outcome.result))


def batch_result(result: InferResult) -> pb.BatchResult:
    """Returns the answer for one image among several."""
    return pb.BatchResult(
        classes=_classes(result),
        heatmap=_heatmap(result.heatmap) if result.heatmap else None,
        timings_ms=_timings(result.timings),
        image=_image(result),
        model_version=result.model_version,
        labels_version=result.labels_version,
        calibration_version=result.calibration_version,
        content_sha256=result.content_sha256,
    )


def _classes(result: InferResult) -> list[pb.ClassScore]:
    return [pb.ClassScore(id=score.id, label=score.label, prob=score.prob) for score in result.classes]


def _image(result: InferResult) -> pb.ImageInfo:
    return pb.ImageInfo(width=result.width, height=result.height, media_type=result.media_type, sha256=result.sha256)


def _timings(timings: Timings) -> pb.Timings:
    return pb.Timings(
        queue=round(timings.queue),
        inference=round(timings.inference),
        total=round(timings.total),
        decode=round(timings.decode),
        cam=round(timings.cam),
        render=round(timings.render),
    )


def _heatmap(heatmap: Heatmap) -> pb.Heatmap:
    options = heatmap.options
    message = pb.Heatmap(
        type="url" if heatmap.link else options.format,
        format=options.format,
        width=heatmap.width,
        height=heatmap.height,
        colormap=options.colormap,
        overlay=options.overlay,
        layer=heatmap.layer,
        method=options.method,
        target=heatmap.target,
        normalization="0-1",
        raw_min=heatmap.raw_min,
        raw_max=heatmap.raw_max,
        degenerate=heatmap.degenerate,
    )
    if heatmap.link:
        message.url = heatmap.link.url
        message.expires_at.FromSeconds(int(heatmap.link.expires_at))
    else:
        message.data_b64 = heatmap.data or b""
    return message
