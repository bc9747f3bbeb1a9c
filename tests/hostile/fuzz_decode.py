"""Coverage-guided fuzzing of what reads callers' bytes: `python -m tests.hostile.fuzz_decode -max_total_time=60`.

libFuzzer, by atheris, changes valid images and keeps what reaches new code of ours. It fails on a probe that raises
anything but an ApiError, on a decoder that breaks the interpreter's own limits, on a result of the wrong shape, on a
hang and on memory without bound. Options are libFuzzer's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["camserve_server.engine"]):
    from camserve_server.base.errors import ApiError
    from camserve_server.engine.decode import decode, probe
    from camserve_server.engine.formats.raster import Limits
    from camserve_server.engine.formats.source import PictureFile
    from camserve_server.engine.imaging_requests import DecodeRequest
    from camserve_server.engine.input_spec import InputSpec

from tests.hostile.seeds import seeds

LIMITS = Limits(
    max_side_px=4096,
    max_pixels=1_000_000,
    max_aspect=200.0,
    max_jpeg_scans=100,
    max_jpeg_scan_pixels=100_000_000,
    memory_bytes=512 << 20,
)
REQUEST = DecodeRequest(InputSpec(32, 24, "squash"), base_side="input")
FORBIDDEN = (MemoryError, RecursionError, SystemError, AssertionError)
OPTIONS = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=65536", "-artifact_prefix=fuzz-", "-verbosity=0"]


def one(data: bytes) -> None:
    """Reads one input in every way that a caller's bytes are read."""
    fd = os.memfd_create("input")
    try:
        os.write(fd, data)
        size = None
        with contextlib.suppress(ApiError):
            size = probe(PictureFile(fd, len(data)), None, None, LIMITS)
        try:
            decoded = decode(PictureFile(fd, len(data)), REQUEST, LIMITS)
        except FORBIDDEN:
            raise
        except Exception:
            return  # a worker makes a refusal of it
        if size is None or (decoded.width, decoded.height) != (size.width, size.height):
            raise AssertionError("the header was refused or told another size than the picture has")
        if decoded.pixels.size != (32, 24) or decoded.pixels.mode != "RGB":
            raise AssertionError("the picture has another shape than was asked for")
    finally:
        os.close(fd)


def main() -> None:
    """Fuzzes until libFuzzer ends the process."""
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds()):
            (Path(folder) / f"seed-{number}").write_bytes(data)
        atheris.Setup([sys.argv[0], *OPTIONS, *sys.argv[1:], folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
