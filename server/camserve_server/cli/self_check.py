"""The self-check: a sample image, classified through REST, its heatmap written."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camserve_server.base.config import Settings
from camserve_server.base.errors import OperatorError

MODEL = "shapes"
TIMEOUT_S = 30.0


class SelfCheckError(OperatorError):
    """The running stack does not answer as it must; the message says how."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the self-check saw."""

    sample: Path
    label: str
    prob: float
    heatmap: Path


def sample_image(settings: Settings) -> Path:
    """Returns an image that ships with the bundled model; raises SelfCheckError when there is none."""
    found = sorted((settings.models_dir / MODEL).glob("*/golden/*.png"))
    if not found:
        raise SelfCheckError(f"{settings.models_dir} has no sample image of the model `{MODEL}`")
    return found[-1]


def self_check(settings: Settings, token: str) -> Checked:
    """Classifies the sample through the edge and writes `<data_dir>/self-check/heatmap.png`; raises SelfCheckError."""
    sample = sample_image(settings)
    request = {
        "model": MODEL,
        "image": {"bytes": base64.b64encode(sample.read_bytes()).decode()},
        "grad_cam": {"enabled": True, "overlay": True},
        "response": {"heatmap": "inline"},
    }
    answer = _post(f"{settings.edge_url}/v1/infer", token, request)
    try:
        top = answer["classes"][0]
        picture = base64.b64decode(answer["heatmap"]["data_b64"])
    except (KeyError, IndexError):
        raise SelfCheckError("the answer lacks classes or the heatmap") from None
    heatmap = settings.data_dir / "self-check" / "heatmap.png"
    heatmap.parent.mkdir(mode=0o700, exist_ok=True)
    heatmap.write_bytes(picture)
    return Checked(sample, top["label"], top["prob"], heatmap)


def _post(url: str, token: str, document: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url,
        json.dumps(document).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    # The stack checks itself by its own address, for which its certificate need not be made out.
    context = ssl._create_unverified_context()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise SelfCheckError(
            f"the self-check through {url} was refused: {error.read().decode(errors='replace')}"
        ) from None
    except OSError as error:
        raise SelfCheckError(f"the self-check through {url} failed: {error}") from None
