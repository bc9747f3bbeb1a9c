"""Several models in one service: what one does, or comes and goes, does not touch the others."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.conftest import Stack, start_stack, stop_stack
from tests.e2e.test_jobs import create, entry, finished
from tests.e2e.test_models import appear, code, infer, states, until
from tests.e2e.test_rest import image
from tests.engine.tiny import write_model

pytestmark = pytest.mark.timeout(240)

MIB = 1024 * 1024
INPUT = "width = 64\nheight = 64"


def classifier(models_dir: Path, name: str, builder: str) -> Path:
    """Writes a model with random weights and a thousand classes."""
    folder = write_model(models_dir, name, architecture=f'builder = "{builder}"', input=INPUT)
    labels = [{"id": f"c{index}", "label": f"class {index}"} for index in range(1000)]
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


@pytest.fixture(scope="module")
def fault(tmp_path_factory):
    """A file that breaks the model `residual` as long as it is there."""
    return tmp_path_factory.mktemp("fault") / "broken"


@pytest.fixture(scope="module")
def running(fault, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("stack")
    classifier(data_dir / "models", "mobile", "torchvision:mobilenet_v3_small")
    classifier(data_dir / "models", "residual", "tests.engine.tiny:SwitchedResNet")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TINY_FAULT", str(fault))
        patched.setenv(
            "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        )
        stack = start_stack(data_dir, pass_deadline_s=5, queue_wait_s=30, replica_count=1)
    yield stack
    stop_stack(stack)


@pytest.fixture
def api(running):
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as client:
        yield client


def explained(api: httpx.Client, model: str) -> tuple[int, object]:
    """Returns the status, and of the answer what is the same every time."""
    request = {"model": model, "image": image(), "grad_cam": {"enabled": True}, "response": {"heatmap": "inline"}}
    answer = api.post("/v1/infer", json=request)
    if answer.status_code != 200:
        return answer.status_code, answer.json()["error"]["code"]
    told = answer.json()
    return 200, [(score["id"], round(score["prob"], 4)) for score in told["classes"][:1]]


@contextmanager
def callers(running: Stack, *models: str) -> Iterator[dict[str, Counter[str]]]:
    """Calls each model again and again, one caller each; gives what they were answered so far."""
    answers: dict[str, Counter[str]] = {model: Counter() for model in models}
    stop = threading.Event()

    def call(model: str) -> None:
        with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as client:
            while not stop.is_set():
                answers[model][str(explained(client, model))] += 1

    threads = [threading.Thread(target=call, args=[model]) for model in models]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def grow(answers: dict[str, Counter[str]], by: int = 3) -> None:
    """Returns once everybody has been answered so often again."""
    before = {model: counted.total() for model, counted in answers.items()}
    until(lambda: all(counted.total() >= before[model] + by for model, counted in answers.items()))


def test_models_answer_side_by_side_whatever_becomes_of_one_of_them(running, api, fault, tmp_path):
    assert {name: states(api, name) for name in ("mobile", "residual")} == {
        "mobile": {"1": "ready"},
        "residual": {"1": "ready"},
    }
    alone = {model: str(explained(api, model)) for model in ("shapes", "mobile", "residual")}
    assert all(answer.startswith("(200") for answer in alone.values())
    with callers(running, "shapes", "mobile") as answers:
        grow(answers)
        for how, told in (("raise", {"internal", "circuit.open"}), ("slow", {""}), ("hang", {"timeout.exceeded"})):
            fault.write_text(how)
            seen = {code(infer(api, "residual")) for _ in range(2)}
            assert seen & told, (how, seen)
            grow(answers)
            fault.unlink()
            until(lambda: infer(api, "residual").status_code == 200)
        assert str(explained(api, "residual")) == alone["residual"]
        # One comes, one that cannot be loaded comes, and one goes.
        appear(running, tmp_path, "comes", "1")
        appear(running, tmp_path, "faulty", "1", architecture='builder = "tests.engine.tiny:Missing"')
        until(lambda: states(api, "comes") == {"1": "ready"} and states(api, "faulty") == {"1": "unavailable"})
        shutil.rmtree(running.data_dir / "models" / "faulty")
        until(lambda: states(api, "faulty") == {})
        grow(answers)
    assert {model: list(counted) for model, counted in answers.items()} == {
        model: [alone[model]] for model in ("shapes", "mobile")
    }


def test_versions_that_do_not_fit_together_are_loaded_on_demand(make_stack, tmp_path):
    stack = make_stack(replica_count=1)
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers()) as api:
        bundled = api.get("/v1/models/shapes").json()["versions"]
        taken_bytes = sum(int(version["memory_bytes"]) for version in bundled)
    stop_stack(stack)
    large = 'builder = "torchvision:squeezenet1_1"\narguments = { num_classes = 3 }'
    for version in "12":
        write_model(tmp_path / "stack1" / "models", "large", version, top="", architecture=large, input=INPUT)
    # The two bundled ones and one of these, of 2.9 MB each.
    stack = make_stack(replica_count=1, models_memory_mb=-(-taken_bytes // MIB) + 3)
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as api:
        (there,) = [version for version, state in states(api, "large").items() if state == "ready"]
        aside = "2" if there == "1" else "1"
        assert states(api, "large") == {there: "ready", aside: "loading"}
        assert api.get("/v1/health").json()["status"] == "serving"
        assert infer(api, "large", there).status_code == 200
        # Now that one was used least lately.
        assert infer(api, "shapes", "1").status_code == 200
        refused = infer(api, "large", aside)
        assert (refused.status_code, code(refused)) == (503, "model.unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        until(lambda: infer(api, "large", aside).status_code == 200)
        assert states(api, "large") == {there: "loading", aside: "ready"}
        job = create(api, [entry("a"), entry("b")], model="large", model_version=aside).json()["job_id"]
        assert finished(api, job)["status"] == "succeeded"
        assert states(api, "shapes")["2"] == "ready"
