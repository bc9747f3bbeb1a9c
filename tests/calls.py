"""Calls of any method, natively and over REST, made from its descriptor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import status_pb2
from tests.images import star_png

from camserve.v1 import errors_pb2
from camserve_server.edge.descriptors import Binding, Method
from camserve_server.edge.descriptors import methods as edge_methods
from camserve_server.rpc.server import services

METHODS = {method.full_name: method for service in services().values() for method in service.methods}
BINDINGS = [(method, binding) for method in edge_methods() for binding in method.bindings]
TUS = "application/offset+octet-stream"


@dataclass(frozen=True)
class Answer:
    """What a caller sees but for the request id; `error` is the error object, or what answered instead."""

    status: Any
    error: Any
    headers: Any = None

    @property
    def code(self) -> str:
        return str(self.error.get("code", "")) if isinstance(self.error, dict) else ""


def name(method: MethodDescriptor | Method) -> str:
    return f"{method.service}.{method.name}" if isinstance(method, Method) else method.full_name


async def native(
    channel: grpc.aio.Channel, method: MethodDescriptor, token: str | None, fields: dict[str, Any] | None = None
) -> Answer:
    """Calls on the gRPC port."""
    message = json_format.ParseDict(fields or {}, message_factory.GetMessageClass(method.input_type)())
    request: Any = message.SerializeToString()
    shape = {
        (False, False): channel.unary_unary,
        (True, False): channel.stream_unary,
        (False, True): channel.unary_stream,
    }[method.client_streaming, method.server_streaming]
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    path = f"/{method.containing_service.full_name}/{method.name}"
    call = shape(path)(iter([request]) if method.client_streaming else request, metadata=metadata, timeout=30)
    try:
        answer = [item async for item in call] if method.server_streaming else [await call]
    except grpc.aio.AioRpcError as error:
        return _refused(error)
    kind = message_factory.GetMessageClass(method.output_type)
    return Answer(grpc.StatusCode.OK, [json_format.MessageToDict(kind.FromString(each)) for each in answer])


def _refused(error: grpc.aio.AioRpcError) -> Answer:
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.pop("grpc-status-details-bin", b""))
    described = errors_pb2.ErrorObject()
    if status.details:
        status.details[0].Unpack(described)
    described.request_id = ""
    trailers.pop("request-id", None)
    return Answer(error.code(), json_format.MessageToDict(described), tuple(sorted(trailers.items())))


def rest(
    api: httpx.Client,
    method: Method,
    binding: Binding,
    ids: dict[str, str],
    *,
    params: dict[str, str] | None = None,
    document: dict[str, Any] | None = None,
) -> Answer:
    """Calls through the edge; what is no JSON gets an image."""
    path = binding.template
    for variable in binding.variables:
        path = path.replace(f"{{{variable}}}", ids[variable])
    headers = {}
    content = None
    if binding.has_body:
        headers["content-type"] = method.consumes[0].replace("*", "png")
        content = json.dumps(document or {}).encode() if method.takes_json else star_png()
    if TUS in method.consumes or (binding.verb == "HEAD" and "storage_id" in binding.variables):
        headers |= {"tus-resumable": "1.0.0", "upload-offset": "0"}
    answer = api.request(binding.verb, path, headers=headers, content=content, params=params)
    kept = {key: value for key, value in answer.headers.items() if key not in ("request-id", "date")}
    return Answer(answer.status_code, _error(answer), tuple(sorted(kept.items())))


def _error(answer: httpx.Response) -> Any:
    try:
        body = answer.json()
    except ValueError:
        return answer.text
    error = body.get("error")
    return {**error, "request_id": ""} if isinstance(error, dict) else body
