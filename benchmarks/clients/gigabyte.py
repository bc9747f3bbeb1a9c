"""A picture of a gigabyte, uploaded by every client: how fast, and at what memory."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

import grpc

from benchmarks.clients.caller import Caller
from benchmarks.processes import PeakWatch
from benchmarks.service import Service
from camserve.v1 import uploads_pb2, uploads_pb2_grpc

# As wide as a picture may be, 32 bits a pixel.
_WIDTH_PX = 16_384
_ROW_BYTES = 4 * _WIDTH_PX
_HEADER_BYTES = 54
_ROWS_AT_ONCE = 16
# The first height at which it has a gigabyte.
WHOLE_PX = -(-1_000_000_000 // _ROW_BYTES)


def size_bytes(height_px: int) -> int:
    """Returns how large a picture of that height is."""
    return _HEADER_BYTES + _ROW_BYTES * height_px


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The client's process before and at its peak over all rounds, in MB, and the median speed in MB/s."""

    language: str
    idle_mb: float
    peak_mb: float
    mb_s: float

    @property
    def growth_mb(self) -> float:
        """Is how far it rose above the client that has uploaded one small picture."""
        return self.peak_mb - self.idle_mb


def write_picture(path: Path, height_px: int) -> str:
    """Writes a BMP that no compression makes smaller, and returns its SHA-256 in hexadecimal."""
    random = Random(7)
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def write(data: bytes) -> None:
            file.write(data)
            digest.update(data)

        write(struct.pack("<2sIHHI", b"BM", size_bytes(height_px), 0, 0, _HEADER_BYTES))
        write(struct.pack("<IiiHHIIiiII", 40, _WIDTH_PX, height_px, 1, 32, 0, 0, 0, 0, 0, 0))
        for row in range(0, height_px, _ROWS_AT_ONCE):
            write(random.randbytes(_ROW_BYTES * min(_ROWS_AT_ONCE, height_px - row)))
    return digest.hexdigest()


def measure_uploads(
    callers: Sequence[Caller], service: Service, small: Path, picture: Path, sha256: str, rounds: int
) -> list[Uploaded]:
    """Uploads the picture by each caller in each round; raises ValueError where something else was stored."""
    metadata = (("authorization", f"Bearer {service.token}"),)
    size_mb = picture.stat().st_size / 1e6
    speeds: dict[str, list[float]] = {caller.language.name: [] for caller in callers}
    with grpc.insecure_channel(service.grpc_target) as channel:
        stub = uploads_pb2_grpc.UploadServiceStub(channel)

        def stored(storage_id: str) -> str:
            there = stub.GetUpload(uploads_pb2.GetUploadRequest(storage_id=storage_id), metadata=metadata)
            stub.DeleteUpload(uploads_pb2.DeleteUploadRequest(storage_id=storage_id), metadata=metadata)
            return str(there.sha256)

        for caller in callers:
            stored(caller.upload(small))
        with PeakWatch(caller.pid for caller in callers) as watch:
            for _ in range(rounds):
                for caller in callers:
                    started = time.monotonic()
                    storage_id = caller.upload(picture)
                    speeds[caller.language.name].append(size_mb / (time.monotonic() - started))
                    if stored(storage_id) != sha256:
                        raise ValueError(f"{caller.language.name} stored another picture")
    return [
        Uploaded(
            caller.language.name,
            watch.start_mb[caller.pid],
            watch.start_mb[caller.pid] + watch.growth_mb[caller.pid],
            median(speeds[caller.language.name]),
        )
        for caller in callers
    ]
