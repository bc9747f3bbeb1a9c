"""`camserve models verify`: the golden inputs, sent to the running service like any caller's pictures."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np

from camserve.v1 import inference_pb2, inference_pb2_grpc, models_pb2
from camserve_server.base.config import Settings
from camserve_server.cli.models import versions
from camserve_server.cli.service import Service, service
from camserve_server.engine.folders import find_folders
from camserve_server.engine.geometry import place
from camserve_server.engine.golden import Case, GoldenFile, Tolerances
from camserve_server.engine.manifest import Precision, UnloadableError, read_manifest
from camserve_server.engine.model import content_hash, input_spec
from camserve_server.engine.render import Drawing, draw

_TIMEOUT_S = 30.0
# A version may have to be loaded first, and a busy service refuses what it has no room for.
_WITHIN_S = 60.0
_PAUSE_S = 0.5
_MOST_CLASSES = 1000
# Larger drawings show no more of a map of a few cells, and this fits inline.
_DRAWING_PX = 256

State = models_pb2.ModelVersion.State


class _WrongError(Exception):
    """An answer is not the one that is known; the message says in what."""


def verify(settings: Settings, name: str | None, version: str | None, say: Callable[[str], None]) -> bool:
    """Says a line per version, of one model or one version where they are named; returns whether all are right.

    Raises ValueError when no server answers, and when it has nothing of that name.
    """
    folders = {
        (folder.parent.name, folder.name): folder
        for folder in find_folders((settings.models_dir, settings.data_dir / "models"))
    }
    right = True
    with service(settings, "inference.read", "inference.write", for_s=3600) as running:
        asked = [
            (model, one) for model, one in versions(running) if name in (None, model) and version in (None, one.version)
        ]
        if not asked:
            raise ValueError(f"the server has no model {name}" + (f" {version}" if version else ""))
        for model, one in asked:
            if one.state == State.retired and version is None:
                continue
            try:
                verdict = _checked(settings, running, model, one, folders.get((model, one.version)))
            except (_WrongError, UnloadableError, OSError, ValueError) as error:
                right, verdict = False, f"FAILED: {error}"
            except grpc.RpcError as error:
                right, verdict = False, f"FAILED: {error.details()}"
            say(f"{model} {one.version}  {verdict}")
    return right


def _checked(
    settings: Settings, running: Service, model: str, version: models_pb2.ModelVersion, folder: Path | None
) -> str:
    """Returns what is good about a version; raises _WrongError, UnloadableError, OSError, ValueError, grpc.RpcError."""
    if version.state in (State.unavailable, State.retired):
        raise _WrongError(version.reason or "it is retired")
    if folder is None:
        raise _WrongError("its folder is not here, and with it the golden inputs")
    manifest = read_manifest(folder)
    content = content_hash(folder, manifest, settings.data_dir / "weights")
    if version.content_sha256 and version.content_sha256 != content:
        raise _WrongError("the server has loaded other content than lies in the folder here")
    if manifest.golden is None:
        return "no golden inputs"
    golden = GoldenFile.model_validate_json((folder / manifest.golden.file).read_bytes())
    # A server from before this field works in what the manifest says.
    precision: Precision = "bfloat16" if (version.precision or manifest.precision) == "bfloat16" else "float32"
    stub = inference_pb2_grpc.InferenceServiceStub(running.channel)
    most_prob, most_cam = 0.0, 0.0
    for case in golden.cases:
        answer = _answer(stub, running, model, version.version, (folder / case.image).read_bytes(), case)
        if answer.content_sha256 != content:
            raise _WrongError("another content answered than lies in the folder here")
        try:
            most_prob = max(most_prob, _compare_classes(answer, case, golden.tolerances))
            if case.cam is not None:
                spec = input_spec(manifest)
                view = place(answer.image.width, answer.image.height, spec).view
                expected = np.load(folder / case.cam, allow_pickle=False)
                limit = golden.tolerances.of_map(float(np.abs(expected).max(initial=0)), precision)
                most_cam = max(most_cam, _compare_maps(answer.heatmap, expected, view, limit))
        except _WrongError as error:
            raise _WrongError(f"{case.image}: {error}") from None
    return f"passed: {len(golden.cases)} pictures, off by {most_prob:.1e} (probability) and {most_cam:.1e} (heatmap)"


def _answer(
    stub: inference_pb2_grpc.InferenceServiceStub,
    running: Service,
    model: str,
    version: str,
    picture: bytes,
    case: Case,
) -> inference_pb2.InferResponse:
    request = inference_pb2.InferRequest(
        model=model,
        model_version=version,
        image=inference_pb2.ImageInput(bytes=picture),
        classify=inference_pb2.ClassificationOptions(top_k=_MOST_CLASSES),
        response=inference_pb2.ResponseOptions(heatmap="inline"),
    )
    if case.cam is not None:
        request.grad_cam.enabled = True
        request.grad_cam.format = "npy"
        request.grad_cam.resolution.struct_value.update({"width": _DRAWING_PX, "height": _DRAWING_PX})
    deadline = time.monotonic() + _WITHIN_S
    while True:
        try:
            return stub.Infer(request, metadata=running.metadata, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)


def _compare_classes(answer: inference_pb2.InferResponse, case: Case, tolerances: Tolerances) -> float:
    """Returns the largest difference of a probability; raises _WrongError beyond the tolerance."""
    if answer.classes[0].id != case.top:
        raise _WrongError("another top class")
    found = {score.id: score.prob for score in answer.classes}
    if missing := case.probs.keys() - found.keys():
        raise _WrongError(f"no class {sorted(missing)[0]}")
    differences = [abs(found[class_id] - expected) for class_id, expected in case.probs.items()]
    off_by = max(differences, default=0.0)
    if not off_by <= tolerances.prob:
        raise _WrongError(f"a probability is off by {off_by:.1e}")
    return off_by


def _compare_maps(
    heatmap: inference_pb2.Heatmap,
    expected: np.ndarray,
    view: tuple[float, float, float, float],
    limit: float,
) -> float:
    """Returns the largest difference to the known map drawn alike; raises _WrongError where that is above the limit."""
    file = io.BytesIO()
    drawing = Drawing(expected, view, heatmap.width, heatmap.height, "npy", "jet", False, 1.0, None)
    drawn = draw(drawing, file)
    stretch = drawn.raw_max - drawn.raw_min
    differences = [abs(heatmap.raw_min - drawn.raw_min), abs(heatmap.raw_max - drawn.raw_max)]
    if heatmap.degenerate != drawn.degenerate:
        differences.append(stretch)
    elif not drawn.degenerate:
        actual = np.load(io.BytesIO(heatmap.data_b64), allow_pickle=False)
        known = np.load(io.BytesIO(file.getvalue()), allow_pickle=False)
        differences.append(float(np.abs(actual - known).max(initial=0)) * stretch)
    off_by = max(differences)
    if not off_by <= limit:
        raise _WrongError(f"the heatmap is off by {off_by:.1e}")
    return off_by
