"""What Envoy adds to a call: the same call through it and around it, in turns, one at a time."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import grpc

from benchmarks.job import Job
from benchmarks.service import SHAPES, Service
from camserve.v1 import (
    health_pb2,
    health_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)

_WARM_UP_CALLS = 20


@dataclass(frozen=True, slots=True)
class Added:
    """Medians of one call in milliseconds: JSON through Envoy, gRPC through Envoy, and gRPC straight to the replica."""

    name: str
    json_ms: float
    proxied_ms: float
    direct_ms: float

    @property
    def json_adds_ms(self) -> float:
        """What Envoy and the transcoding add to a JSON call."""
        return self.json_ms - self.direct_ms


class _Rest:
    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: bytes | None = None) -> None:
        self._connection.request(method, path, body, self._headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise ValueError(f"{method} {path}: {response.status} {json.loads(data)}")

    def close(self) -> None:
        self._connection.close()


def measure_added(service: Service, picture: bytes, calls: int) -> list[Added]:
    """Returns what Envoy adds to small calls: health, the list of models, and a small picture of the bundled model."""
    rest = _Rest(service.edge_port, service.token)
    credentials = (("authorization", f"Bearer {service.token}"),)
    job = Job(picture, "image/png", SHAPES, cam=False)
    body, message = job.as_json(), inference_pb2.InferRequest.FromString(job.as_message())
    with (
        grpc.insecure_channel(service.grpc_target) as direct,
        grpc.insecure_channel(f"127.0.0.1:{service.edge_port}") as proxied,
    ):

        def native(make: Callable[[grpc.Channel], Callable[..., Any]], request: Any) -> list[Callable[[], object]]:
            stubs = [make(channel) for channel in (proxied, direct)]
            return [partial(call, request, metadata=credentials, timeout=60) for call in stubs]

        ways: dict[str, list[Callable[[], object]]] = {
            "GET /v1/health": [
                lambda: rest.call("GET", "/v1/health"),
                *native(lambda one: health_pb2_grpc.HealthServiceStub(one).GetHealth, health_pb2.GetHealthRequest()),
            ],
            "GET /v1/models": [
                lambda: rest.call("GET", "/v1/models"),
                *native(lambda one: models_pb2_grpc.ModelServiceStub(one).ListModels, models_pb2.ListModelsRequest()),
            ],
            "POST /v1/infer, shapes, 96 x 96 PNG": [
                lambda: rest.call("POST", "/v1/infer", body),
                *native(lambda one: inference_pb2_grpc.InferenceServiceStub(one).Infer, message),
            ],
        }
        added = [Added(name, *_in_turns(callers, calls)) for name, callers in ways.items()]
    rest.close()
    return added


def _in_turns(callers: list[Callable[[], object]], calls: int) -> list[float]:
    """Returns each caller's median in milliseconds; they call one after the other, so that noise meets all alike."""
    times: list[list[float]] = [[] for _ in callers]
    for number in range(_WARM_UP_CALLS + calls):
        for caller, spent in zip(callers, times, strict=True):
            started = time.perf_counter()
            caller()
            if number >= _WARM_UP_CALLS:
                spent.append((time.perf_counter() - started) * 1000)
    return [median(spent) for spent in times]
