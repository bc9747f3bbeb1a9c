"""LitServe: an API object with batching, one worker.

It reads annotations of the object at run time, so they are no strings here.
"""

import os
from typing import Any

import litserve

from benchmarks.peers import PORT
from benchmarks.peers.classifier import Classifier


class Api(litserve.LitAPI):
    """Answers a batch at a time."""

    def setup(self, device: str) -> None:
        """Builds the network in the worker."""
        self.classifier = Classifier()

    def decode_request(self, request: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Takes the question as it comes."""
        return request

    def batch(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keeps the questions as a list: they are no tensors."""
        return inputs

    def predict(self, x: list[dict[str, Any]], **_: Any) -> list[dict[str, Any]]:
        """Answers a batch."""
        return self.classifier.answer_all(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Gives every question its answer."""
        return output

    def encode_response(self, output: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Gives the answer as it is."""
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=8, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=int(os.environ[PORT]), generate_client_file=False, log_level="warning")
