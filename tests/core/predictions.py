"""Predictions as an engine makes them, without one."""

from __future__ import annotations

import numpy as np

from camserve_server.engine.labels import Label
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.prediction import Prediction

CLASSES = ("ant", "bee", "cat")
WHOLE = (0.0, 0.0, 1.0, 1.0)


def version(name, classes=CLASSES):
    return ModelVersion("tiny", name, "ready", labels=tuple(Label(one, one.title()) for one in classes))


def prediction(top=0, *, ms=10.0, cam=None, target=None, batch=1):
    probs = np.full(len(CLASSES), 0.1, np.float32)
    probs[top] = 0.8
    explained = (None, None, None) if cam is None else ("body", "gradcam", top if target is None else target)
    return Prediction(probs, cam, *explained, queue_ms=5.0, inference_ms=ms, cam_ms=0.0, batch_size=batch)
