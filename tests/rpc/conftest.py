from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from camserve.v1 import errors_pb2, inference_pb2_grpc, jobs_pb2_grpc, models_pb2_grpc, objects_pb2_grpc


@dataclass
class Client:
    """Stubs on the direct gRPC port, with a token that has every scope."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]

    @property
    def inference(self) -> Any:
        return inference_pb2_grpc.InferenceServiceStub(self.channel)

    @property
    def jobs(self) -> Any:
        return jobs_pb2_grpc.JobServiceStub(self.channel)

    @property
    def models(self) -> Any:
        return models_pb2_grpc.ModelServiceStub(self.channel)

    @property
    def objects(self) -> Any:
        return objects_pb2_grpc.ObjectServiceStub(self.channel)


@pytest.fixture
async def client(stack) -> AsyncIterator[Client]:
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        yield Client(channel, (("authorization", f"Bearer {stack.token()}"),))


@dataclass
class Refusal:
    """What a native caller sees of an error."""

    code: grpc.StatusCode
    error: errors_pb2.ErrorObject
    reason: str
    retryable: bool


@pytest.fixture
def refusal() -> Callable[[grpc.aio.AioRpcError], Refusal]:
    def read(caught: grpc.aio.AioRpcError) -> Refusal:
        trailers = dict(caught.trailing_metadata())
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        error, info = errors_pb2.ErrorObject(), error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(error)
        assert status.details[1].Unpack(info)
        assert info.domain == "camserve"
        assert error.request_id == trailers["request-id"]
        assert status.code == caught.code().value[0]
        retryable = any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
        return Refusal(caught.code(), error, info.reason, retryable)

    return read
