"""The inputs of a batch or a job."""

from __future__ import annotations

from camserve.v1 import inference_pb2, jobs_pb2
from camserve_server.base.errors import ApiError
from camserve_server.core.infer_options import BatchInput
from camserve_server.rpc.call import Call
from camserve_server.rpc.images import Images
from camserve_server.rpc.options import infer_options


def batch_inputs(
    call: Call, images: Images, request: inference_pb2.InferBatchRequest | jobs_pb2.CreateJobRequest
) -> list[BatchInput]:
    """Returns the inputs; raises ApiError as `Images.source` and `infer_options`, with a field that names the input."""
    inputs = []
    for at, entry in enumerate(request.inputs):
        try:
            options = infer_options(
                entry,
                model=request.model,
                model_version=request.model_version,
                response=request.response,
                media_type=entry.image.media_type,
                content_md5=entry.image.content_md5,
            )
            inputs.append(BatchInput(entry.id, images.source(call, entry.image), options))
        except ApiError as error:
            raise error.at(f"inputs[{at}]") from None
    return inputs
