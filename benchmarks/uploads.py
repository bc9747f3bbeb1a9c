"""A picture of 0.8 GB, stored over gRPC and REST: how fast beside a server that only counts, and at what memory."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from statistics import median

import grpc
from google.api import httpbody_pb2

from benchmarks.processes import PeakWatch, role
from benchmarks.service import Service
from camserve.v1 import uploads_pb2, uploads_pb2_grpc

SETTINGS = {"CAMSERVE_MAX_IMAGE_BYTES": "1000000000"}
# As large as a side may be, 24 bits a pixel.
_SIDE_PX = 16_384
_CHUNK_BYTES = 1 << 20
_HEADER_BYTES = 54
SIZE_BYTES = _HEADER_BYTES + 3 * _SIDE_PX * _SIDE_PX


@dataclass(frozen=True, slots=True)
class Stored:
    """Medians of the rounds in MB/s, and how far each process rose above its memory of before, as (role, MB)."""

    counted_mb_s: float
    received_mb_s: float
    grpc_mb_s: float
    rest_mb_s: float
    growth_mb: list[tuple[str, float]]


def measure_uploads(service: Service, rounds: int) -> Stored:
    """Sends the picture in turns to the four."""
    chunk = Random(7).randbytes(_CHUNK_BYTES)
    pids = [pid for ids in service.pids().values() for pid in ids]
    roles = {pid: role(pid) for pid in pids}
    seconds: dict[str, list[float]] = {"counted": [], "received": [], "grpc": [], "rest": []}
    with _server("counter") as counter, _server("receiver") as receiver, PeakWatch(pids) as watch:
        for _ in range(rounds):
            seconds["counted"].append(_over_grpc(counter, "", chunk))
            seconds["received"].append(_over_grpc(receiver, "", chunk))
            seconds["grpc"].append(_over_grpc(service.grpc_target, service.token, chunk))
            seconds["rest"].append(_over_rest(service, chunk))
    growth = sorted(((roles[pid], mb) for pid, mb in watch.growth_mb.items()), key=lambda one: -one[1])
    speeds = {name: SIZE_BYTES / 1e6 / median(times) for name, times in seconds.items()}
    return Stored(speeds["counted"], speeds["received"], speeds["grpc"], speeds["rest"], growth)


def _body(chunk: bytes) -> Iterator[bytes]:
    """Yields a BMP."""
    header = struct.pack("<2sIHHI", b"BM", SIZE_BYTES, 0, 0, _HEADER_BYTES)
    yield header + struct.pack("<IiiHHIIiiII", 40, _SIDE_PX, _SIDE_PX, 1, 24, 0, 0, 0, 0, 0, 0)
    left = SIZE_BYTES - _HEADER_BYTES
    while left:
        yield chunk[:left]
        left -= min(left, len(chunk))


def _over_grpc(target: str, token: str, chunk: bytes) -> float:
    def requests() -> Iterator[uploads_pb2.UploadImageRequest]:
        for number, data in enumerate(_body(chunk)):
            body = httpbody_pb2.HttpBody(data=data, content_type="" if number else "image/bmp")
            yield uploads_pb2.UploadImageRequest(size_bytes=None if number else SIZE_BYTES, body=body)

    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(target) as channel:
        stub = uploads_pb2_grpc.UploadServiceStub(channel)
        started = time.monotonic()
        stored = stub.UploadImage(requests(), metadata=metadata, timeout=300)
        seconds = time.monotonic() - started
        if stored.size_bytes != SIZE_BYTES:
            raise ValueError(f"{stored.size_bytes} of {SIZE_BYTES} bytes came")
        if token:
            stub.DeleteUpload(uploads_pb2.DeleteUploadRequest(storage_id=stored.storage_id), metadata=metadata)
    return seconds


def _over_rest(service: Service, chunk: bytes) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", service.edge_port, timeout=300)
    headers = {
        "Authorization": f"Bearer {service.token}",
        "Content-Type": "image/bmp",
        "Content-Length": str(SIZE_BYTES),
    }
    try:
        started = time.monotonic()
        connection.request("POST", "/v1/uploads", _body(chunk), headers)
        response = connection.getresponse()
        document = json.loads(response.read())
        seconds = time.monotonic() - started
        if response.status != 201:
            raise ValueError(f"{response.status} {document}")
        connection.request(
            "DELETE", f"/v1/uploads/{document['storage_id']}", headers={"Authorization": headers["Authorization"]}
        )
        connection.getresponse().read()
    finally:
        connection.close()
    return seconds


@contextmanager
def _server(module: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", f"benchmarks.{module}", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            if not process.stdout or process.stdout.readline() != b"ready\n":
                raise ValueError(f"the {module} did not start")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
