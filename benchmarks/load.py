"""The callers: a process whose threads call a server over gRPC or REST, each waiting for its answer."""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from benchmarks.driver import obey
from benchmarks.job import Job, check
from benchmarks.window import Window
from camserve.v1 import inference_pb2

_TIMEOUT_S = 60.0
_METHOD = "/camserve.v1.InferenceService/Infer"
# Bodies travel as bytes on the callers' side: a client's parsing is not what is measured.
_CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))

Call = Callable[[], bytes]


def grpc_caller(target: str, token: str, job: Job) -> tuple[Callable[[ExitStack], Call], Callable[[bytes], None]]:
    """Returns what makes a call per thread, all on one connection, and what checks an answer."""
    channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
    call = channel.unary_unary(_METHOD, request_serializer=None, response_deserializer=None)
    message, metadata = job.as_message(), (("authorization", f"Bearer {token}"),)

    def make(stack: ExitStack) -> Call:
        return lambda: call(message, metadata=metadata, timeout=_TIMEOUT_S)

    return make, lambda data: check(inference_pb2.InferResponse.FromString(data), job)


def rest_caller(
    port: int, token: str, job: Job, *, upload: bool
) -> tuple[Callable[[ExitStack], Call], Callable[[bytes], None]]:
    """Returns what makes a call per thread, each on its own connection, and what checks an answer."""
    path = job.as_query() if upload else "/v1/infer"
    body = job.picture if upload else job.as_json()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": job.media_type if upload else "application/json",
    }

    def make(stack: ExitStack) -> Call:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        stack.callback(connection.close)

        def call() -> bytes:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            data = response.read()
            if response.status != 200:
                raise ValueError(f"{response.status} {data[:200].decode(errors='replace')}")
            return data

        return call

    return make, lambda data: check(json_format.Parse(data, inference_pb2.InferResponse()), job)


def run(make: Callable[[ExitStack], Call], concurrency: int, warm_up_s: float, seconds: float) -> Window:
    """Returns the window in which `concurrency` threads called as often as they could."""
    window = Window.of(time.monotonic(), warm_up_s, seconds)

    def work() -> None:
        with ExitStack() as stack:
            call = make(stack)
            while (started := time.monotonic()) < window.ends_at:
                try:
                    call()
                except (grpc.RpcError, OSError, ValueError, http.client.HTTPException) as error:
                    window.errors[_said(error)] += 1
                    continue
                window.add(started, time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return window


def _said(error: Exception) -> str:
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"


def _serve(order: dict[str, Any]) -> Any:
    picture = Path(order["picture"])
    media_type = "image/png" if picture.suffix == ".png" else "image/jpeg"
    job = Job(picture.read_bytes(), media_type, order["model"], order["cam"])
    if order["way"] == "grpc":
        make, check_answer = grpc_caller(order["target"], order["token"], job)
    else:
        make, check_answer = rest_caller(order["port"], order["token"], job, upload=order["way"] == "upload")
    with ExitStack() as stack:
        check_answer(make(stack)())
    return run(make, order["concurrency"], order["warm_up_s"], order["seconds"]).sample().as_dict()


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    obey(_serve)
