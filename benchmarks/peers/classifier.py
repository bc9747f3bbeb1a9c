"""What every peer serves: a classifier with Grad-CAM as most people write it, by pytorch-grad-cam and Pillow."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM  # type: ignore[import-untyped]
from pytorch_grad_cam.utils.image import show_cam_on_image  # type: ignore[import-untyped]
from safetensors.torch import load_file
from torchvision import models, transforms

from benchmarks.peers import MODEL, SHAPES_WEIGHTS
from camserve_server.engine.architectures.shapes import ShapesNet

_SIDES = {"resnet50": (256, 224), "shapes": (160, 160)}
_TOP = 5


class Classifier:
    """Takes {"image": base64, "cam": bool} and returns {"classes": [[index, probability], ...], "heatmap": base64}.

    The heatmap is the picture with the map over it in jet's colours, as PNG of the picture's size.
    """

    def __init__(self) -> None:
        """Builds the network that the environment names."""
        name = os.environ[MODEL]
        if name == "shapes":
            self._model: torch.nn.Module = ShapesNet()
            self._model.load_state_dict(load_file(Path(os.environ[SHAPES_WEIGHTS])))
            layer = self._model.get_submodule("focus")
        else:
            torch.manual_seed(0)
            self._model = models.resnet50(weights=None)
            layer = self._model.get_submodule("layer4")
        self._model.eval()
        self._cam = GradCAM(model=self._model, target_layers=[layer])
        resized, side = _SIDES[name]
        self._transform = transforms.Compose(
            [
                transforms.Resize(resized),
                transforms.CenterCrop(side),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Answers one question."""
        return self.answer_all([question])[0]

    def answer_all(self, questions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Answers several in one batch."""
        pictures = [Image.open(io.BytesIO(base64.b64decode(one["image"]))).convert("RGB") for one in questions]
        inputs = torch.stack([self._transform(picture) for picture in pictures])
        cams: Sequence[Any] = [None] * len(pictures)
        if any(one["cam"] for one in questions):
            cams = self._cam(input_tensor=inputs, targets=None)
            logits = self._cam.outputs.detach()
        else:
            with torch.no_grad():
                logits = self._model(inputs)
        top = logits.softmax(dim=1).topk(_TOP)
        return [
            {
                "classes": list(zip(indices, probs, strict=True)),
                "heatmap": _drawn(cam, picture) if cam is not None and one["cam"] else None,
            }
            for one, picture, cam, indices, probs in zip(
                questions, pictures, cams, top.indices.tolist(), top.values.tolist(), strict=True
            )
        ]


def _drawn(cam: Any, picture: Image.Image) -> str:
    levels = cv2.resize(cam, picture.size)
    overlay = show_cam_on_image(np.asarray(picture, np.float32) / 255, levels, use_rgb=True)
    file = io.BytesIO()
    Image.fromarray(overlay).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
