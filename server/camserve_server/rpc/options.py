"""Options of a prediction, from any request message that has them."""

from __future__ import annotations

import base64
import re
from typing import Literal, Protocol

from google.protobuf import json_format, struct_pb2

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer_options import HeatmapOptions, InferOptions

MAX_HEATMAP_SIDE_PX = 4096
MIN_LONGEST_SIDE_PX = 16
_MOST_RESOLUTION_CHARS = 256
# 16 bytes have one spelling: of the last character four bits say nothing and are zero (RFC 4648 section 3.5).
_MD5 = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")


class Asking(Protocol):
    """What InferRequest, InferUploadRequest and BatchInput have in common."""

    @property
    def resize(self) -> inference_pb2.Resize:
        """Shrinks the image first."""

    @property
    def grad_cam(self) -> inference_pb2.GradCAMOptions:
        """Chooses the heatmap."""

    @property
    def classify(self) -> inference_pb2.ClassificationOptions:
        """Chooses the classes."""


def infer_options(
    asking: Asking,
    *,
    model: str,
    model_version: str,
    response: inference_pb2.ResponseOptions,
    media_type: str | None = None,
    content_md5: str | None = None,
    file_name: str | None = None,
) -> InferOptions:
    """Returns the options with every default filled in; raises ApiError(PARAM_INVALID, PARAM_OUT_OF_RANGE)."""
    classify = asking.classify
    return InferOptions(
        model=model,
        model_version=model_version or "stable",
        longest_side_px=_longest_side(asking.resize.longest_side),
        heatmap=_heatmap(asking.grad_cam) if asking.grad_cam.enabled else None,
        top_k=classify.top_k if classify.HasField("top_k") else 5,
        prob_threshold=classify.prob_threshold,
        inline=response.heatmap == "inline",
        media_type=media_type or None,
        file_name=file_name,
        md5=parse_md5(content_md5),
    )


def parse_md5(content_md5: str | None) -> bytes | None:
    """Returns the 16 bytes of a base64 MD5; raises ApiError(IMAGE_BASE64_INVALID)."""
    if not content_md5:
        return None
    if not _MD5.fullmatch(content_md5):
        raise ApiError(Reason.IMAGE_BASE64_INVALID, "content_md5 is not the base64 of 16 bytes.")
    return base64.b64decode(content_md5)


def one_md5(*declared: str | None) -> str | None:
    """Returns the MD5 that is declared, at whichever places; raises ApiError(IMAGE_MD5_MISMATCH) where they differ.

    Raises as parse_md5 does, too.
    """
    told = {content_md5 for content_md5 in declared if parse_md5(content_md5)}
    if len(told) > 1:
        raise ApiError(Reason.IMAGE_MD5_MISMATCH)
    return next(iter(told), None)


def _longest_side(value: int) -> int | None:
    if 0 < value < MIN_LONGEST_SIDE_PX:
        raise ApiError(Reason.PARAM_OUT_OF_RANGE, field="resize.longest_side", minimum=MIN_LONGEST_SIDE_PX)
    return value or None


def _heatmap(asked: inference_pb2.GradCAMOptions) -> HeatmapOptions:
    picture_format: Literal["png", "npy"] = "npy" if asked.format == "npy" else "png"
    if asked.overlay and picture_format == "npy":
        raise ApiError(Reason.PARAM_INVALID, "An overlay is a picture: NPY has none.", field="grad_cam.overlay")
    return HeatmapOptions(
        layer=asked.layer or "auto",
        colormap=asked.colormap or "jet",
        overlay=asked.overlay,
        format=picture_format,
        size=_size(asked.resolution) if asked.HasField("resolution") else None,
        method=asked.method or "gradcam",
        target=asked.target or None,
        alpha=asked.alpha if asked.HasField("alpha") else 0.5,
    )


def _size(resolution: struct_pb2.Value) -> tuple[int, int] | None:
    kind = resolution.WhichOneof("kind")
    text = resolution.string_value
    if text.startswith("{") and len(text) <= _MOST_RESOLUTION_CHARS:
        # A query parameter or a form field can carry the object only as text.
        try:
            json_format.Parse(text, resolution, max_recursion_depth=8)
        except json_format.ParseError:
            raise ApiError(Reason.PARAM_INVALID, field="grad_cam.resolution") from None
        kind = resolution.WhichOneof("kind")
    if kind in (None, "null_value") or text == "input":
        return None
    fields = resolution.struct_value.fields
    if kind != "struct_value" or set(fields) != {"width", "height"}:
        raise ApiError(
            Reason.PARAM_INVALID, 'resolution is "input" or {"width", "height"}.', field="grad_cam.resolution"
        )
    return _side(fields["width"], "width"), _side(fields["height"], "height")


def _side(value: struct_pb2.Value, name: str) -> int:
    field = f"grad_cam.resolution.{name}"
    if value.WhichOneof("kind") != "number_value" or value.number_value % 1:
        raise ApiError(Reason.PARAM_INVALID, "A side is a whole number of pixels.", field=field)
    if not 1 <= value.number_value <= MAX_HEATMAP_SIDE_PX:
        raise ApiError(Reason.PARAM_OUT_OF_RANGE, field=field, minimum=1, maximum=MAX_HEATMAP_SIDE_PX)
    return int(value.number_value)
