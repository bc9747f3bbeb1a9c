"""Pictures of 16k x 16k pixels through multipart and Envoy: are they answered, how fast, and what do they take?"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.huge_pictures import HugePicture, huge_pictures, shrink_times_s
from benchmarks.processes import PeakWatch, role
from benchmarks.service import SHAPES, Service

_BOUNDARY = "camserve-benchmark"
_CHUNK_BYTES = 256 * 1024
SETTINGS = {
    "CAMSERVE_MAX_IMAGE_BYTES": "1000000000",
    "CAMSERVE_SYNC_IMAGE_BYTES": "1000000000",
    "CAMSERVE_SYNC_PIXELS": "268435456",
    "CAMSERVE_SYNC_TIMEOUT_S": "60",
    "CAMSERVE_IMAGING_DEADLINE_S": "60",
    "CAMSERVE_UPLOAD_MEMORY_MB": "2048",
}


@dataclass(frozen=True, slots=True)
class HugeAnswer:
    """The status, the times, and how far each process rose above its memory of before, in MB, as (role, growth).

    `seconds` counts from the first byte sent to the last one received, `timings_ms` is what the service says of itself.
    A replica holds the file itself in shared memory, which is in its growth.
    """

    name: str
    file_mb: float
    status: int
    seconds: float
    timings_ms: dict[str, float]
    growth_mb: list[tuple[str, float]]

    def beyond_file_mb(self) -> float:
        """Returns the growth of the process that grew most, without the file that was sent."""
        return max(growth - self.file_mb * (role == "replica") for role, growth in self.growth_mb)


@dataclass(frozen=True, slots=True)
class JpegRound:
    """The JPEG sent once, and what every decoder took for it alone just before."""

    answer: HugeAnswer
    decoders_s: dict[str, float]

    def ratio(self, decoder: str) -> float:
        """Returns the time of the service, divided by that of a decoder and the inference."""
        timings = self.answer.timings_ms
        return timings["total"] / (1000 * self.decoders_s[decoder] + timings["inference"])


@dataclass(frozen=True, slots=True)
class HugeFindings:
    """The rounds of the JPEG, and one answer for each other form."""

    jpeg: list[JpegRound]
    others: list[HugeAnswer]

    def answers(self) -> list[HugeAnswer]:
        """Returns all of them, in the order of sending."""
        return [*(one.answer for one in self.jpeg), *self.others]

    def fastest(self) -> tuple[str, float]:
        """Returns the decoder with the shortest median, and that median in seconds."""
        medians = {name: median(one.decoders_s[name] for one in self.jpeg) for name in self.jpeg[0].decoders_s}
        return min(medians.items(), key=lambda one: one[1])

    def jpeg_ratio(self) -> float:
        """Returns the median over the rounds of the service's time over the fastest decoder's and the inference's."""
        decoder, _ = self.fastest()
        return median(one.ratio(decoder) for one in self.jpeg)


def measure_huge(service: Service, folder: Path, *, rounds: int, quick: bool) -> HugeFindings:
    """Sends the JPEG in each round and every other picture once, with a heatmap; when quick only the JPEG.

    Every process is followed meanwhile.
    """
    jpeg, *others = huge_pictures()
    path = folder / "picture"
    jpeg.write(path)
    sent = [JpegRound(decoders_s=shrink_times_s(path), answer=_send(service, jpeg, path)) for _ in range(rounds)]
    answers = []
    for picture in () if quick else others:
        picture.write(path)
        answers.append(_send(service, picture, path))
    path.unlink()
    return HugeFindings(sent, answers)


def _send(service: Service, picture: HugePicture, path: Path) -> HugeAnswer:
    size = path.stat().st_size
    pids = [pid for ids in service.pids().values() for pid in ids]
    roles = {pid: role(pid) for pid in pids}
    with PeakWatch(pids) as watch:
        started = time.monotonic()
        status, document = _post(service, picture.media_type, path, size)
        seconds = time.monotonic() - started
    growth = sorted(((roles[pid], mb) for pid, mb in watch.growth_mb.items()), key=lambda one: -one[1])
    timings = document.get("timings_ms", {})
    return HugeAnswer(picture.name, size / 1e6, status, seconds, timings, growth)


def _post(service: Service, media_type: str, path: Path, size: int) -> tuple[int, dict[str, Any]]:
    fields = {"model": SHAPES, "grad_cam.enabled": "true"}
    head = "".join(_part(f'name="{name}"', "text/plain") + f"{value}\r\n" for name, value in fields.items())
    opening = (head + _part('name="image"; filename="huge"', media_type)).encode()
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
