"""What is asked of one image, for every way in which it is asked."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from urllib.parse import urlencode

from camserve.v1 import inference_pb2


@dataclass(frozen=True, slots=True)
class Job:
    """A picture, the model, and whether a heatmap of the picture's size comes back inline, and over the picture."""

    picture: bytes
    media_type: str
    model: str
    cam: bool
    overlay: bool = False

    def as_message(self) -> bytes:
        """Returns the serialised InferRequest."""
        request = inference_pb2.InferRequest(
            model=self.model,
            image=inference_pb2.ImageInput(bytes=self.picture),
            grad_cam=inference_pb2.GradCAMOptions(enabled=self.cam, overlay=self.overlay),
            response=inference_pb2.ResponseOptions(heatmap="inline"),
        )
        return request.SerializeToString()

    def as_json(self) -> bytes:
        """Returns the JSON body of POST /v1/infer."""
        document = {
            "model": self.model,
            "image": {"bytes": base64.b64encode(self.picture).decode()},
            "grad_cam": {"enabled": self.cam, "overlay": self.overlay},
            "response": {"heatmap": "inline"},
        }
        return json.dumps(document).encode()

    def as_query(self) -> str:
        """Returns the path and query of the raw upload, whose body is the picture."""
        options = {
            "model": self.model,
            "grad_cam.enabled": str(self.cam).lower(),
            "grad_cam.overlay": str(self.overlay).lower(),
            "response.heatmap": "inline",
        }
        return "/v1/infer?" + urlencode(options)

    def as_request(self, token: str) -> bytes:
        """Returns the raw upload as a whole request over HTTP/1.1."""
        head = (
            f"POST {self.as_query()} HTTP/1.1\r\nHost: camserve\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {self.media_type}\r\nContent-Length: {len(self.picture)}\r\n\r\n"
        )
        return head.encode() + self.picture


def check(answer: inference_pb2.InferResponse, job: Job) -> None:
    """Raises ValueError when the answer is not what was asked for."""
    if not answer.classes or answer.HasField("heatmap") != job.cam or (job.cam and not answer.heatmap.data_b64):
        raise ValueError("the answer lacks classes or the heatmap")
