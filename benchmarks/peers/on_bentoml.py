"""BentoML: a service with a batchable method, one worker."""

from __future__ import annotations

from typing import Any

import bentoml

from benchmarks.peers.classifier import Classifier


@bentoml.service(workers=1, traffic={"timeout": 60})
class Peer:
    """Answers up to eight questions together."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=60_000)
    def answer_all(self, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers a batch."""
        return self.classifier.answer_all(questions)
