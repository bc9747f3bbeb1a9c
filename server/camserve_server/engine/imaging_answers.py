"""Reading workers' answers, which come from processes that hostile bytes may own."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.engine.geometry import MAX_DRAWING_PX
from camserve_server.engine.imaging_channel import DEFERRED, close_all
from camserve_server.engine.imaging_process import Answer
from camserve_server.engine.imaging_requests import (
    DecodedImage,
    DecodeRequest,
    DeferredError,
    Probed,
    RenderedHeatmap,
    RenderRequest,
)

# What a worker may answer to a decode, and the only details that pass.
_DECODE_REASONS: Final = frozenset(
    {
        Reason.IMAGE_INVALID_FORMAT,
        Reason.IMAGE_MD5_MISMATCH,
        Reason.IMAGE_TOO_LARGE,
        Reason.IMAGE_ASPECT_RATIO,
        Reason.MEDIA_UNSUPPORTED,
        Reason.MEDIA_MISMATCH,
        Reason.IMAGE_DECODING_FAILED,
        Reason.IMAGE_ANIMATED_NOT_SUPPORTED,
        Reason.IMAGE_REJECTED,
    }
)
_DETAILS: Final = ("width", "height", "max_side_px", "max_pixels", "max_aspect")
# Beyond what any setting allows and any drawing needs.
_MAX_SIDE_PX: Final = 1 << 20
_MAX_DRAWN_BYTES: Final = 4 * MAX_DRAWING_PX * MAX_DRAWING_PX + (1 << 20)
_MEDIA_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/tiff", "image/bmp"})


def decoded_image(answer: Answer, request: DecodeRequest, budget: ByteBudget | None) -> DecodedImage:
    """Return the picture of an answer, or raise the error that it carries.

    An answer that is not well formed means IMAGE_REJECTED; SERVICE_OVERLOADED when the budget is exhausted.
    """
    try:
        raise_error(answer)
        message, fds = answer.message, answer.fds
        width, height = request.input.width, request.input.height
        draw_width, draw_height = (_side(side, MAX_DRAWING_PX) for side in message["draw"])
        base_side = (draw_width, draw_height) if request.base_side == "input" else request.base_side
        x0, y0, x1, y1 = (_number(side) for side in message["view"])
        sha256, media_type = str(message["sha256"]), str(message["media_type"])
        if len(bytes.fromhex(sha256)) != 32 or media_type not in _MEDIA_TYPES:
            raise ValueError("not what a worker says")
        if len(fds) != (1 if base_side is None else 2):
            raise ValueError("wrong number of descriptors")
        shared = SharedBuffer.adopt(fds.pop(0), width * height * 3)
        try:
            base = (
                None if base_side is None else SharedBuffer.adopt(fds.pop(0), base_side[0] * base_side[1] * 3, budget)
            )
        except BaseException:
            shared.close()
            raise
        return DecodedImage(
            width=_side(message["width"], _MAX_SIDE_PX),
            height=_side(message["height"], _MAX_SIDE_PX),
            media_type=media_type,
            sha256=sha256,
            draw_width=draw_width,
            draw_height=draw_height,
            pixels=np.frombuffer(shared.view(), np.uint8).reshape(height, width, 3),
            view=(x0, y0, x1, y1),
            base=base,
            decode_ms=_number(message["ms"]),
            _shared=shared,
        )
    except (KeyError, TypeError, ValueError, OSError):
        raise ApiError(Reason.IMAGE_REJECTED) from None
    finally:
        close_all(answer.fds)


def probed(answer: Answer) -> Probed:
    """Return what an answer says of a header, or raise the error that it carries; IMAGE_REJECTED for any other."""
    try:
        raise_error(answer)
        message = answer.message
        width, height = (_side(message[name], _MAX_SIDE_PX) for name in ("width", "height"))
        if message["media_type"] not in _MEDIA_TYPES:
            raise ValueError("not what a worker says")
        return Probed(width, height, message["media_type"])
    except (KeyError, TypeError, ValueError):
        raise ApiError(Reason.IMAGE_REJECTED) from None
    finally:
        close_all(answer.fds)


def raise_error(answer: Answer) -> None:
    """Raise the error of an answer, if it is one."""
    code = answer.message.get("error")
    if code is None:
        return
    if code == DEFERRED:
        raise DeferredError
    reason = next((reason for reason in _DECODE_REASONS if reason == code), Reason.INTERNAL)
    details = answer.message.get("details") or {}
    raise ApiError(reason, **{name: details[name] for name in _DETAILS if isinstance(details.get(name), int)})


def rendered_heatmap(answer: Answer, request: RenderRequest) -> RenderedHeatmap:
    """Return the heatmap of an answer; raises INTERNAL for any other, because a map of ours is never at fault."""
    try:
        message = answer.message
        size = _side(message["size"], _MAX_DRAWN_BYTES)
        with SharedBuffer.adopt(answer.fds.pop(0), size) as drawn:
            data = drawn.view()
        return RenderedHeatmap(
            data=data,
            width=request.width,
            height=request.height,
            raw_min=_number(message["raw_min"]),
            raw_max=_number(message["raw_max"]),
            degenerate=bool(message["degenerate"]),
            render_ms=_number(message["ms"]),
        )
    except (KeyError, IndexError, TypeError, ValueError, OSError):
        raise ApiError(Reason.INTERNAL) from None
    finally:
        close_all(answer.fds)


def _side(value: Any, limit: int) -> int:
    if not isinstance(value, int) or not 1 <= value <= limit:
        raise ValueError("not a side")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a number")
    return float(value)
