"""The callers: a process whose threads call a server over gRPC or REST, each waiting for its answer."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
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


@dataclass(frozen=True, slots=True)
class Target:
    """A server: `make` returns a call for one thread, whose connections the stack closes; `check` an answer's check."""

    make: Callable[[ExitStack], Call]
    check: Callable[[bytes], None]


def grpc_target(stack: ExitStack, address: str, tokens: Sequence[str], job: Job) -> Target:
    """Returns a gRPC server as a target; all threads share one connection, which `stack` closes, and take the tokens
    in turn.
    """
    channel = stack.enter_context(grpc.insecure_channel(address, options=_CHANNEL_OPTIONS))
    call = channel.unary_unary(_METHOD, request_serializer=None, response_deserializer=None)
    message, turns = job.as_message(), itertools.cycle(tokens)

    def make(_: ExitStack) -> Call:
        metadata = (("authorization", f"Bearer {next(turns)}"),)
        return lambda: call(message, metadata=metadata, timeout=_TIMEOUT_S)

    return Target(make, lambda data: check(inference_pb2.InferResponse.FromString(data), job))


def rest_target(port: int, token: str, job: Job, *, upload: bool) -> Target:
    """Returns the edge as a target, asked by JSON or by raw upload; each thread has its own connection."""
    path = job.as_query() if upload else "/v1/infer"
    body = job.picture if upload else job.as_json()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": job.media_type if upload else "application/json",
    }

    return Target(
        partial(_posting, port, path, body, headers),
        lambda data: check(json_format.Parse(data, inference_pb2.InferResponse()), job),
    )


def peer_target(port: int, path: str, wrapped: str | None, job: Job) -> Target:
    """Returns another server as a target, see `peers.classifier`; `wrapped` is the key of a list that it wants."""
    question = {"image": base64.b64encode(job.picture).decode(), "cam": job.cam}
    body = json.dumps({wrapped: [question]} if wrapped else question).encode()

    def check_answer(data: bytes) -> None:
        answer = json.loads(data)[0] if wrapped else json.loads(data)
        if len(answer["classes"]) != 5 or bool(answer["heatmap"]) != job.cam:
            raise ValueError("the answer lacks classes or the heatmap")

    return Target(partial(_posting, port, path, body, {"Content-Type": "application/json"}), check_answer)


def _posting(port: int, path: str, body: bytes, headers: dict[str, str], stack: ExitStack) -> Call:
    """Returns a call that posts, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    stack.callback(connection.close)

    def call() -> bytes:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status} {_code(data)}")
        return data

    return call


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


def _code(body: bytes) -> str:
    """Returns the error code of an answer, or how it begins where it is none of the service's."""
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _serve(order: dict[str, Any]) -> Any:
    picture = Path(order["picture"])
    media_type = "image/png" if picture.suffix == ".png" else "image/jpeg"
    job = Job(picture.read_bytes(), media_type, order["model"], order["cam"], order.get("overlay", False))
    with ExitStack() as stack:
        if order["way"] == "grpc":
            target = grpc_target(stack, order["target"], order.get("tokens") or [order["token"]], job)
        elif order["way"] == "peer":
            target = peer_target(order["port"], order["path"], order["wrapped"], job)
        else:
            target = rest_target(order["port"], order["token"], job, upload=order["way"] == "upload")
        target.check(target.make(stack)())
        return run(target.make, order["concurrency"], order["warm_up_s"], order["seconds"]).sample().as_dict()


if __name__ == "__main__":
    obey(_serve)
