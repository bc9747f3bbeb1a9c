"""Mosec: a worker with dynamic batching, one process."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from benchmarks.peers.classifier import Classifier


class Peer(Worker):
    """Answers up to eight questions together."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers a batch."""
        return self.classifier.answer_all(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Peer, num=1, max_batch_size=8, max_wait_time=10)
    server.run()
