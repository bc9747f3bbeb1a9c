"""The imaging worker process: one request at a time, pictures and drawings by descriptor."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import open_anonymous
from camserve_server.engine.confine import confine, limit_cpu, resident_bytes
from camserve_server.engine.decode import decode, probe
from camserve_server.engine.formats.raster import Limits
from camserve_server.engine.formats.source import PictureFile
from camserve_server.engine.imaging_channel import DEFERRED, Channel, close_all
from camserve_server.engine.imaging_requests import DecodeRequest, DeferredError
from camserve_server.engine.render import Drawing, draw

# The parent kills a worker at its deadline; the processor limit is the second line.
_CPU_GRACE_S = 5.0
_ROWS_PER_WRITE = 256


class Worker:
    """Answers requests until the parent hangs up."""

    def __init__(self, channel: Channel, limits: Limits, deadline_s: float, fault_injection: bool) -> None:
        self._channel = channel
        self._limits = limits
        self._deadline_s = deadline_s
        self._fault_injection = fault_injection

    def serve(self) -> None:
        """Answer one request after the other."""
        while True:
            try:
                received = self._channel.receive()
            except EOFError:
                return
            if received is not None:
                self._answer(*received)

    def _answer(self, message: dict[str, Any], fds: list[int]) -> None:
        limit_cpu(self._deadline_s + _CPU_GRACE_S)
        started = time.monotonic()
        out: list[int] = []
        try:
            reply = self._handle(message, fds, out)
        except ApiError as error:
            reply = {"error": error.reason, "details": error.details}
        except DeferredError:
            reply = {"error": DEFERRED}
        except MemoryError:
            reply = {"error": Reason.IMAGE_REJECTED}
        except Exception:
            # Decoders raise nearly anything for hostile bytes, and what they say is not for callers.
            reply = {"error": Reason.IMAGE_DECODING_FAILED}
        if "error" in reply:
            close_all(out)
            out = []
        close_all(fds)
        gc.collect(1)
        reply["ms"] = (time.monotonic() - started) * 1000.0
        reply["resident_bytes"] = resident_bytes()
        self._channel.send(reply, out)
        close_all(out)

    def _handle(self, message: dict[str, Any], fds: list[int], out: list[int]) -> dict[str, Any]:
        operation = message["operation"]
        if operation == "decode":
            return self._decode(message, fds[0], out)
        if operation == "probe":
            file = PictureFile(fds[0], message["size"], message["held"])
            return asdict(probe(file, message["declared_media_type"], message["file_name"], self._limits))
        if operation == "render":
            return self._render(message, fds, out)
        if operation == "fault" and self._fault_injection:
            _fail(message["kind"])
        raise ApiError(Reason.INTERNAL)

    def _decode(self, message: dict[str, Any], fd: int, out: list[int]) -> dict[str, Any]:
        decoded = decode(PictureFile(fd, message["size"]), DecodeRequest.from_message(message), self._limits)
        out.append(_write_pixels("pixels", decoded.pixels))
        if decoded.base is not None:
            out.append(_write_pixels("base", decoded.base))
        return {
            "width": decoded.width,
            "height": decoded.height,
            "media_type": decoded.media_type,
            "sha256": decoded.sha256,
            "draw": [decoded.draw_width, decoded.draw_height],
            "view": decoded.view,
        }

    def _render(self, message: dict[str, Any], fds: list[int], out: list[int]) -> dict[str, Any]:
        rows, columns = message["cam"]
        cam = np.frombuffer(os.pread(fds[0], rows * columns * 4, 0), np.float32).reshape(rows, columns)
        drawing = Drawing(
            cam=cam,
            view=tuple(message["view"]),
            width=message["width"],
            height=message["height"],
            format=message["format"],
            colormap=message["colormap"],
            overlay=message["overlay"],
            alpha=message["alpha"],
            base_fd=fds[1] if len(fds) > 1 else None,
        )
        out.append(open_anonymous("heatmap"))
        with open(out[0], "wb", closefd=False) as file:
            drawn = draw(drawing, file)
        return {
            "size": drawn.size,
            "raw_min": drawn.raw_min,
            "raw_max": drawn.raw_max,
            "degenerate": drawn.degenerate,
        }


def _write_pixels(name: str, image: Image.Image) -> int:
    fd = open_anonymous(name)
    try:
        with open(fd, "wb", closefd=False) as file:
            for top in range(0, image.height, _ROWS_PER_WRITE):
                bottom = min(top + _ROWS_PER_WRITE, image.height)
                file.write(image.crop((0, top, image.width, bottom)).tobytes())
    except BaseException:
        os.close(fd)
        raise
    return fd


def _fail(kind: str) -> None:
    """Do what a decoder under attack might do; tests ask for it."""
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hang":
        signal.pause()
    if kind == "memory":
        held = []
        while True:
            held.append(bytearray(64 << 20))


def _warm() -> None:
    """Load what the first picture would load."""
    for kind in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16)).save(buffer, kind)
        Image.open(buffer, formats=[kind]).load()


def main(descriptor: int, options: dict[str, Any]) -> None:
    """Serve requests from the socket `descriptor`."""
    Image.MAX_IMAGE_PIXELS = None
    _warm()
    limits = Limits(**options["limits"])
    confine(options["parent_pid"], limits.memory_bytes + options["max_image_bytes"])
    channel = Channel(socket.socket(fileno=descriptor))
    channel.send({"ready": True, "resident_bytes": resident_bytes()})
    # From here on libraries may print about hostile bytes; nobody reads that.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    gc.collect()
    gc.freeze()
    Worker(channel, limits, options["deadline_s"], options["fault_injection"]).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
