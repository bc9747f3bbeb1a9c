"""The raw maps of pytorch-grad-cam, before it stretches them to 0-1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytorch_grad_cam as reference
from numpy.typing import NDArray
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

CLASSES = {
    "gradcam": reference.GradCAM,
    "gradcam++": reference.GradCAMPlusPlus,
    "hirescam": reference.HiResCAM,
    "layercam": reference.LayerCAM,
    "xgradcam": reference.XGradCAM,
    "gradcamelementwise": reference.GradCAMElementWise,
    "eigencam": reference.EigenCAM,
}


def reference_maps(
    module: nn.Module, layer: str, inputs: Tensor, targets: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """Returns each method's signed maps (N, h, w), from one full backward of the library's own."""
    target_layer = module.get_submodule(layer)
    chosen = [ClassifierOutputTarget(target) for target in targets]
    module.requires_grad_(True)
    with reference.GradCAM(model=module, target_layers=[target_layer]) as cam:
        cam(input_tensor=inputs, targets=chosen)
        activations = cam.activations_and_grads.activations[0].numpy()
        gradients = cam.activations_and_grads.gradients[0].numpy()
    module.zero_grad()
    module.requires_grad_(False)
    found = {}
    for name, method in CLASSES.items():
        with method(model=module, target_layers=[target_layer]) as cam:
            found[name] = cam.get_cam_image(inputs, target_layer, chosen, activations, gradients, False)
    return found
