"""A picture of 16k x 16k pixels through multipart and Envoy: is it answered, how fast, and what does it take?"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.picture import HUGE_SIDE_PX, write_huge_jpeg
from benchmarks.processes import PeakWatch, role
from benchmarks.service import SHAPES, Service

_BOUNDARY = "camserve-benchmark"
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class HugeAnswer:
    """The status, the time, and how far each process rose above its memory of before, in MB, as (role, growth)."""

    file_mb: float
    status: int
    seconds: float
    detail: str
    growth_mb: list[tuple[str, float]]

    def greatest_mb(self) -> float:
        """Returns the growth of the process that grew most."""
        return max(growth for _, growth in self.growth_mb)


def measure_huge(service: Service, folder: Path) -> HugeAnswer:
    """Sends the picture once, with a heatmap over it, and follows every process meanwhile."""
    path = folder / "huge.jpg"
    size = write_huge_jpeg(path)
    pids = [pid for ids in service.pids().values() for pid in ids]
    roles = {pid: role(pid) for pid in pids}
    with PeakWatch(pids) as watch:
        started = time.monotonic()
        status, document = _post(service, path, size)
        seconds = time.monotonic() - started
    path.unlink()
    growth = sorted(((roles[pid], mb) for pid, mb in watch.growth_mb.items()), key=lambda one: -one[1])
    return HugeAnswer(size / 1e6, status, seconds, _detail(status, document), growth)


def _post(service: Service, path: Path, size: int) -> tuple[int, dict[str, object]]:
    fields = {"model": SHAPES, "grad_cam.enabled": "true", "grad_cam.overlay": "true"}
    head = "".join(_part(f'name="{name}"', "text/plain") + f"{value}\r\n" for name, value in fields.items())
    opening = (head + _part('name="image"; filename="huge.jpg"', "image/jpeg")).encode()
    closing = f"\r\n--{_BOUNDARY}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield opening
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        yield closing

    connection = http.client.HTTPConnection("127.0.0.1", service.edge_port, timeout=120)
    headers = {
        "Authorization": f"Bearer {service.token}",
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(opening) + size + len(closing)),
    }
    try:
        connection.request("POST", "/v1/infer", body(), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _part(disposition: str, media_type: str) -> str:
    return f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {media_type}\r\n\r\n"


def _detail(status: int, document: dict[str, object]) -> str:
    shown = document.get("timings_ms") if status == 200 else document.get("error")
    return f"{HUGE_SIDE_PX} x {HUGE_SIDE_PX}: {json.dumps(shown)}"
