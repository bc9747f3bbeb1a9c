"""FastAPI on uvicorn: an endpoint in the pool of threads, and a lock, as the CAM keeps the maps of a call in itself."""

from __future__ import annotations

import os
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers import PORT
from benchmarks.peers.classifier import Classifier

app = FastAPI()
classifier = Classifier()
turn = threading.Lock()


class Question(BaseModel):
    """A picture in base64, and whether a heatmap is wanted."""

    image: str
    cam: bool


@app.post("/predict")
def predict(question: Question) -> dict[str, Any]:
    """Answers one question."""
    with turn:
        return classifier.answer(question.model_dump())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ[PORT]), log_level="warning")
