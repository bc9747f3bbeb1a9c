"""Ray Serve: a deployment with dynamic batching, one replica."""

from __future__ import annotations

import os
import signal
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers import PORT
from benchmarks.peers.classifier import Classifier


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 2}, max_ongoing_requests=64)
class Peer:
    """Answers up to eight questions together."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def answer_all(self, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers a batch."""
        return self.classifier.answer_all(questions)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answers one question."""
        answer: dict[str, Any] = await self.answer_all(await request.json())
        return answer


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ[PORT])})
    serve.run(Peer.bind(), route_prefix="/predict")  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
