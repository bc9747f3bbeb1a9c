"""Golden inputs: pictures with known answers that a version carries along and must reproduce."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from camserve_server.base.errors import ApiError
from camserve_server.engine.inference import Explain
from camserve_server.engine.input_spec import InputSpec
from camserve_server.engine.manifest import InnerPath, Precision, UnloadableError
from camserve_server.engine.precision import BFLOAT16_CAM

if TYPE_CHECKING:
    from camserve_server.engine.model import ModelVersion

GoldenState = Literal["passed", "failed", "none"]

_FOLDER = "golden"
_WRITTEN_PROBS = 5


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tolerances(_Table):
    """How far an answer may be off: a probability absolutely, a map relative to its peak (if above 1)."""

    prob: float = 1e-3
    cam: float = 1e-3

    def of_map(self, peak: float, precision: Precision) -> float:
        """Returns how far a map made in a precision may be off anywhere, where the known one has that peak."""
        own = self.cam * max(1.0, peak)
        return own if precision == "float32" else max(own, BFLOAT16_CAM * peak)


class Case(_Table):
    """A picture, the id of its top class, some probabilities by class id, and its raw map (.npy)."""

    image: InnerPath
    top: str
    probs: dict[str, float] = {}
    cam: InnerPath | None = None


class GoldenFile(_Table):
    """The contents of golden.json."""

    tolerances: Tolerances = Tolerances()
    cases: tuple[Case, ...]


def check_golden(folder: Path, file: str, model: ModelVersion) -> tuple[GoldenState, str | None]:
    """Runs the golden inputs one by one; returns the state and, when failed, the first reason.

    On the thread that loads the version only.
    """
    try:
        golden = GoldenFile.model_validate_json((folder / file).read_bytes())
        for number, case in enumerate(golden.cases, 1):
            fault = _fault(folder, case, golden.tolerances, model)
            if fault is not None:
                return "failed", f"case {number}: {fault}"
    # Decoders and models raise what they like, and a fault in the golden inputs is no fault of the model.
    except BaseException as error:
        return "failed", f"the golden inputs cannot be run ({type(error).__name__})"
    return ("passed", None) if golden.cases else ("none", None)


def _fault(folder: Path, case: Case, tolerances: Tolerances, model: ModelVersion) -> str | None:
    explain = None
    if case.cam is not None:
        if model.default_layer is None:
            return "a map is expected of a model without layers"
        explain = Explain(model.default_layer, "gradcam", None)
    outcome = model.run([_pixels(folder / case.image, model)], [explain])[0]
    probs = outcome.probs.numpy()
    ids = [label.id for label in model.labels]
    if ids[int(probs.argmax())] != case.top:
        return "another top class"
    for id_, expected in case.probs.items():
        if id_ not in ids:
            return "a class that the model does not have"
        if not abs(float(probs[ids.index(id_)]) - expected) <= tolerances.prob:
            return "a probability is off"
    if case.cam is not None and outcome.cam is not None:
        expected_map = np.load(folder / case.cam, allow_pickle=False)
        peak = float(np.abs(expected_map).max(initial=0))
        if not _agree(outcome.cam.numpy(), expected_map, tolerances.of_map(peak, model.precision)):
            return "the heatmap is off"
    return None


def _agree(actual: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> bool:
    if actual.shape != expected.shape:
        return False
    return bool(np.abs(actual - expected).max(initial=0) <= tolerance)


def write_golden(folder: Path, file: str, pictures: Sequence[tuple[str, bytes]], model: ModelVersion) -> None:
    """Writes pictures, given as names and encoded bytes, and what the model answers to them, as golden inputs."""
    (folder / _FOLDER).mkdir()
    cases: list[Case] = []
    for number, (name, data) in enumerate(pictures, 1):
        explain = None if model.default_layer is None else Explain(model.default_layer, "gradcam", None)
        outcome = model.run([decode_picture(name, data, model)], [explain])[0]
        probs = outcome.probs.numpy()
        top = [int(index) for index in np.argsort(-probs, kind="stable")[:_WRITTEN_PROBS]]
        image = f"{_FOLDER}/{number}{Path(name).suffix.lower()}"
        (folder / image).write_bytes(data)
        cam = None
        if outcome.cam is not None:
            cam = f"{_FOLDER}/{number}.npy"
            np.save(folder / cam, outcome.cam.numpy())
        expected = {model.labels[index].id: round(float(probs[index]), 6) for index in top}
        cases.append(Case(image=image, top=model.labels[top[0]].id, probs=expected, cam=cam))
    text = GoldenFile(cases=tuple(cases)).model_dump_json(indent=2, exclude_none=True)
    (folder / file).write_text(text + "\n", encoding="utf-8")


def decode_picture(name: str, data: bytes, model: ModelVersion) -> NDArray[np.uint8]:
    """Decodes encoded bytes to the model's input as an imaging worker would; raises UnloadableError naming the file."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            return _decoded(file.fileno(), len(data), model.input)
        # Decoders raise what they like.
        except Exception as error:
            why = error.reason if isinstance(error, ApiError) else type(error).__name__
            raise UnloadableError(f"the golden picture {name} cannot be decoded ({why})") from None


def _pixels(file: Path, model: ModelVersion) -> NDArray[np.uint8]:
    with file.open("rb") as opened:
        return _decoded(opened.fileno(), file.stat().st_size, model.input)


def _decoded(descriptor: int, size_bytes: int, seen: InputSpec) -> NDArray[np.uint8]:
    """Decodes as an imaging worker would, so that the check covers the preprocessing too."""
    # The decoder belongs to the imaging workers; here it is needed once, if at all.
    from camserve_server.engine.decode import decode
    from camserve_server.engine.formats.raster import Limits
    from camserve_server.engine.formats.source import PictureFile
    from camserve_server.engine.imaging_requests import DecodeRequest

    limits = Limits(
        max_side_px=4096,
        max_pixels=1 << 24,
        max_aspect=200,
        max_jpeg_scans=100,
        max_jpeg_scan_pixels=1 << 30,
        memory_bytes=1 << 30,
    )
    picture = PictureFile(descriptor, size_bytes)
    return np.array(decode(picture, DecodeRequest(input=seen), limits).pixels)
