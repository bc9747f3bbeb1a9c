"""Decoding in the test's own process, where a debugger and coverage see it."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.engine.images import Pixels, shared

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.decode import Decoded, decode
from camserve_server.engine.formats.raster import Limits
from camserve_server.engine.formats.source import PictureFile
from camserve_server.engine.imaging_requests import DecodeRequest
from camserve_server.engine.input_spec import InputSpec

LIMITS = Limits(
    max_side_px=4096,
    max_pixels=8_000_000,
    max_aspect=200,
    max_jpeg_scans=100,
    max_jpeg_scan_pixels=400_000_000,
    memory_bytes=256 << 20,
)


def decoded(data: bytes, spec: InputSpec, *, limits: Limits = LIMITS, **request: Any) -> Decoded:
    """Decode bytes for a model's input."""
    with shared(data) as buffer:
        return decode(PictureFile(buffer.fd, buffer.size), DecodeRequest(spec, **request), limits)


def pixels(data: bytes, width: int, height: int, **request: Any) -> Pixels:
    """Decode bytes at this size; at the picture's own size nothing is resampled."""
    return np.asarray(decoded(data, InputSpec(width, height, "squash"), **request).pixels)


def largest_difference(data: bytes, expected: np.ndarray[Any, Any]) -> int:
    """Return by how much a sample differs at most from what was written."""
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    got = pixels(data, expected.shape[1], expected.shape[0])
    return int(np.abs(got.astype(int) - expected.astype(int)).max())


def on_white(colours: np.ndarray[Any, Any], alpha: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return colours composited on white."""
    weight = alpha[..., None] / 255
    return np.rint(colours * weight + 255 * (1 - weight))


def refusal(data: bytes, limits: Limits = LIMITS, **request: Any) -> Reason:
    """Decode bytes that must be refused, and return the reason that the worker gives for what was raised."""
    try:
        decoded(data, InputSpec(32, 32), limits=limits, **request)
    except ApiError as error:
        return error.reason
    except Exception:
        return Reason.IMAGE_DECODING_FAILED
    raise AssertionError("the picture was accepted")
