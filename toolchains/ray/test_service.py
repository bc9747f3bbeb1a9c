"""The whole service with a Ray of its own: it answers, survives the end of an actor, and leaves nothing behind."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from tests.conftest import Stack, stop_stack
from toolchains.ray.conftest import Nodes

from camserve_server.base import bundle

_STAR = bundle.MODELS / "shapes/2/golden/star.png"


@pytest.fixture
def stack(make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stack:
    monkeypatch.setattr("tests.conftest.START_WITHIN_S", 200.0)
    (tmp_path / "models/shapes").mkdir(parents=True)
    (tmp_path / "models/shapes/2").symlink_to(bundle.MODELS / "shapes/2")
    return make_stack(engine="ray", model_load_wait_s=100, models_dir=tmp_path / "models")


def descendants(stack: Stack) -> list[psutil.Process]:
    return psutil.Process(stack.process.pid).children(recursive=True)


def actors(stack: Stack) -> list[psutil.Process]:
    return [process for process in descendants(stack) if "ModelActor" in " ".join(process.cmdline())]


def infer(stack: Stack) -> dict[str, object]:
    body = {
        "model": "shapes",
        "image": {"bytes": base64.b64encode(_STAR.read_bytes()).decode()},
        "grad_cam": {"enabled": True},
    }
    # Where the only actor takes long to be replaced, callers are told to come again.
    while (answer := httpx.post(f"{stack.edge_url}/v1/infer", json=body, headers=stack.headers(), timeout=60)).is_error:
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True), answer.text
        time.sleep(float(answer.headers["retry-after"]))
    return answer.json()


def test_the_service_answers_by_actors_whatever_becomes_of_one_and_ends_with_all_of_them(stack: Stack) -> None:
    first = infer(stack)
    assert first["classes"][0]["id"] == "star"
    (actor,) = actors(stack)
    actor.kill()
    again = infer(stack)
    assert again["classes"] == first["classes"]
    left = descendants(stack)
    stop_stack(stack)
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive
    assert "Traceback" not in (stack.data_dir / "logs/server.log").read_text()


def test_who_has_no_token_is_not_let_into_the_cluster(nodes: Nodes) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    program = f"import ray; ray.init(address={nodes.address!r}); print('inside')"
    stranger = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert stranger.returncode != 0
    assert "inside" not in stranger.stdout
    assert "uthenticat" in stranger.stderr
