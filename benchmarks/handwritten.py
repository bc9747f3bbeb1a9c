"""A gRPC service as most people write it, for comparison: pytorch-grad-cam, torchvision transforms, Pillow.

It is no straw man: decoding and drawing run in a pool of threads, only the model is called by one thread at a time,
because pytorch-grad-cam keeps a call's activations in the object.
"""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import grpc
import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM  # type: ignore[import-untyped]
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # type: ignore[import-untyped]
from torchvision import models, transforms

from benchmarks.driver import obey
from benchmarks.loop import LoopThread
from camserve.v1 import inference_pb2 as pb
from camserve.v1 import inference_pb2_grpc

_MAX_MESSAGE_BYTES = 101_000_000


class Handwritten(inference_pb2_grpc.InferenceServiceServicer):
    """Answers `Infer` with the five best classes and a coloured map at the picture's size, inline."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._model = models.resnet50(weights=None).eval()
        self._cam = GradCAM(model=self._model, target_layers=[self._model.layer4[-1]])
        self._transform = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )
        self._model_thread = ThreadPoolExecutor(1)

    async def Infer(self, request: pb.InferRequest, context: Any) -> pb.InferResponse:  # noqa: N802
        """Decodes, predicts, explains and draws."""
        picture, tensor = await asyncio.to_thread(self._prepare, request.image.bytes)
        loop = asyncio.get_running_loop()
        classes, cam = await loop.run_in_executor(self._model_thread, self._explain, tensor, request.grad_cam.enabled)
        answer = pb.InferResponse(model=request.model, classes=classes)
        if cam is not None:
            answer.heatmap.data_b64 = await asyncio.to_thread(_draw, cam, picture.size)
        return answer

    def _prepare(self, data: bytes) -> tuple[Image.Image, torch.Tensor]:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        return picture, self._transform(picture).unsqueeze(0)

    def _explain(self, tensor: torch.Tensor, wants_cam: bool) -> tuple[list[pb.ClassScore], Any]:
        with torch.no_grad():
            top = self._model(tensor).softmax(dim=1)[0].topk(5)
        classes = [
            pb.ClassScore(id=str(index), prob=prob)
            for prob, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        if not wants_cam:
            return classes, None
        return classes, self._cam(input_tensor=tensor, targets=[ClassifierOutputTarget(int(top.indices[0]))])[0]


def _draw(cam: Any, size: tuple[int, int]) -> bytes:
    levels = (255 * cv2.resize(cam, size)).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG")
    return file.getvalue()


async def _start() -> tuple[grpc.aio.Server, int]:
    limits = (("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", -1))
    server = grpc.aio.server(options=limits)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(Handwritten(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def _main() -> None:
    loop = LoopThread()
    server, port = loop.wait(_start())
    # Its orders come over gRPC.
    obey(lambda _: None, hello={"target": f"127.0.0.1:{port}"})
    loop.wait(server.stop(None))


if __name__ == "__main__":
    _main()
