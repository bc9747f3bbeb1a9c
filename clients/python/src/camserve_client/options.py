"""What a caller may ask of a classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from camserve_client.contents import ImageSource
from camserve_client.gen import inference_pb2 as pb

Method = Literal["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam"]
Colormap = Literal["jet", "viridis", "turbo", "inferno", "magma", "plasma", "hot", "gray"]
Placement = Literal["inline", "url"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cam:
    """How the heatmap is made and drawn.

    `layer` is one of the model's layers or `auto`, the last convolutional one. `target` is the id of the class to
    explain, by default the most probable one. `overlay` draws the map over the image with the opacity `alpha`, 0 to 1.
    `size` is (width, height) in pixels, each up to 4096, by default the image's own.
    """

    method: Method = "gradcam"
    layer: str = "auto"
    target: str | None = None
    colormap: Colormap = "jet"
    format: Literal["png", "npy"] = "png"
    overlay: bool = False
    alpha: float = 0.5
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked of one image: `top_k` classes, 1 to 1000, none below `min_prob`, 0 to 1, and a heatmap.

    `longest_side` shrinks the image first, to that many pixels.
    """

    top_k: int = 5
    min_prob: float = 0.0
    cam: bool | Cam = False
    longest_side: int | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """One image of a batch or a job: its id, by default its place in the sequence, and what is asked of it alone."""

    image: ImageSource
    id: str | None = None
    ask: Ask | None = None


def fill(message: pb.InferRequest | pb.InferUploadRequest | pb.BatchInput, ask: Ask) -> None:
    """Writes what is asked into a message."""
    message.classify.top_k = ask.top_k
    if ask.min_prob:
        message.classify.prob_threshold = ask.min_prob
    if ask.longest_side is not None:
        message.resize.longest_side = ask.longest_side
    if not ask.cam:
        return
    cam = Cam() if ask.cam is True else ask.cam
    options = message.grad_cam
    options.enabled = True
    options.method = cam.method
    options.layer = cam.layer
    options.target = cam.target or ""
    options.colormap = cam.colormap
    options.format = cam.format
    options.overlay = cam.overlay
    options.alpha = cam.alpha
    if cam.size is not None:
        width, height = cam.size
        options.resolution.struct_value.update({"width": width, "height": height})
