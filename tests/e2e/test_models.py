"""Models that come and go while the service runs, on every replica."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import torch
from tests.conftest import Stack, start_replica, start_stack, stop_stack
from tests.e2e.test_jobs import create, entry, finished, picture
from tests.e2e.test_rest import image
from tests.engine.tiny import TinyNet, write_model

from camserve.v1.models_pb2 import ListModelsRequest, ModelVersion
from camserve.v1.models_pb2_grpc import ModelServiceStub

pytestmark = pytest.mark.timeout(180)

# Two seconds to find it, and what a busy machine takes to load it.
WITHIN_S = 20.0


@pytest.fixture(scope="module")
def fault(tmp_path_factory):
    """A file that breaks SwitchedNet as long as it is there."""
    return tmp_path_factory.mktemp("fault") / "broken"


@pytest.fixture(scope="module")
def running(fault, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TINY_FAULT", str(fault))
        patched.setenv(
            "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        )
        stack = start_stack(tmp_path_factory.mktemp("stack"))
    yield stack
    stop_stack(stack)


@pytest.fixture
def api(running):
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as client:
        yield client


def infer(api: httpx.Client, model: str, version: str = "") -> httpx.Response:
    return api.post("/v1/infer", json={"model": model, "model_version": version, "image": image()})


def code(answer: httpx.Response) -> str:
    return "" if answer.status_code == 200 else answer.json()["error"]["code"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def appear(running: Stack, tmp_path: Path, name: str, version: str, **tables: str) -> Path:
    """Makes a version's folder and moves it to where it is found, in one step."""
    draft = write_model(tmp_path, name, version, **tables)
    folder = running.data_dir / "models" / name / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    return draft.rename(folder)


def states(api: httpx.Client, name: str) -> dict[str, str]:
    answer = api.get(f"/v1/models/{name}")
    return {version["version"]: version["state"] for version in answer.json().get("versions", [])}


def test_a_model_comes_and_goes_without_a_restart_and_the_others_notice_nothing(running, api, tmp_path):
    assert code(infer(api, "comes")) == "model.not_found"
    appear(running, tmp_path, "comes", "1")
    until(lambda: infer(api, "comes").status_code == 200)
    folder = appear(running, tmp_path, "comes", "2", top="")
    until(lambda: infer(api, "comes", "2").json().get("model_version") == "2")
    assert infer(api, "comes").json()["model_version"] == "1"
    metrics = f"http://127.0.0.1:{running.metrics_port}/metrics"
    assert 'model="comes",version="2"' in httpx.get(metrics).text
    shutil.rmtree(folder)
    until(lambda: code(infer(api, "comes", "2")) == "model.version_not_found")
    until(lambda: 'model="comes",version="2"' not in httpx.get(metrics).text)
    assert infer(api, "comes").status_code == infer(api, "shapes").status_code == 200


@contextmanager
def replica(running: Stack, **settings: object):
    """A second server on the state of the stack; gives what it says of a model's versions."""
    process, ready = start_replica(running, **settings)
    with process:
        try:
            until(ready.exists)
            metadata = (("authorization", f"Bearer {running.token()}"),)
            with grpc.insecure_channel(json.loads(ready.read_text())["grpc_target"]) as channel:
                listing = ModelServiceStub(channel)

                def told(name: str) -> dict[str, str]:
                    for model in listing.ListModels(ListModelsRequest(), metadata=metadata).models:
                        if model.model == name:
                            return {one.version: ModelVersion.State.Name(one.state) for one in model.versions}
                    return {}

                yield told
        finally:
            process.terminate()


def test_a_version_is_loaded_and_retired_by_every_replica_for_good(running, api, tmp_path):
    with replica(running) as told:
        appear(running, tmp_path, "everywhere", "1")
        folder = appear(running, tmp_path, "everywhere", "2", top="")
        until(lambda: states(api, "everywhere") == told("everywhere") == {"1": "ready", "2": "ready"})
        (folder / "retired").touch()
        until(lambda: states(api, "everywhere") == told("everywhere") == {"1": "ready", "2": "retired"})
    assert code(infer(api, "everywhere", "2")) == "model.version_not_found"
    with replica(running) as told:
        assert told("everywhere") == {"1": "ready", "2": "retired"}


def test_a_checkpoint_is_added_by_a_command_and_served_without_a_restart(running, api, tmp_path):
    torch.manual_seed(0)
    torch.save(TinyNet().state_dict(), tmp_path / "tiny.pt")
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\n")
    source = ["--weights", tmp_path / "tiny.pt", "--builder", "tests.engine.tiny:TinyNet"]
    seen = ["--size", "32", "--fit", "pad", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25"]
    arguments = [*source, *seen, "--labels", tmp_path / "labels.txt"]
    added = running.camserve("models", "add", "mine", *map(str, arguments))
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout.splitlines()[-1].startswith("mine 1 is in ")
    until(lambda: infer(api, "mine").status_code == 200)
    listed = api.get("/v1/models/mine").json()["versions"][0]
    assert (listed["golden"], listed["aliases"], listed["classes"]) == ("passed", ["stable"], 3)
    again = running.camserve("models", "add", "mine", *map(str, arguments))
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "camserve: mine 1 is not added: mine 1 is there already, and a version never changes\n"
    wrong = running.camserve("models", "add", "mine", "--version", "2", *map(str, arguments), "--layer", "nowhere")
    assert wrong.stderr == ("camserve: mine 2 is not added: model.toml: cam.layer is no layer usable for a heatmap\n")
    assert [path.name for path in (running.data_dir / "models" / "mine").iterdir()] == ["1"]


def test_a_replica_without_a_model_leaves_its_jobs_to_those_that_have_it(running, api, tmp_path):
    appear(running, tmp_path, "uneven", "1")
    until(lambda: states(api, "uneven") == {"1": "ready"})
    broken = write_model(tmp_path / "other", "uneven", "1", weights='file = "missing.safetensors"')
    with replica(running, models_dir=broken.parents[1]) as told:
        assert told("uneven") == {"1": "unavailable"}
        inputs = [entry(f"i{n}", picture()) for n in range(64)]
        jobs = [create(api, inputs, model="uneven").json()["job_id"] for _ in range(3)]
        # What both have goes on meanwhile.
        jobs.append(create(api, inputs, model="shapes").json()["job_id"])
        for job in jobs:
            assert finished(api, job)["result_summary"] == {"items": 64, "succeeded": 64, "failed": 0}


def test_what_is_left_of_a_job_fails_clearly_when_its_version_is_retired(running, api, tmp_path, fault):
    folder = appear(running, tmp_path, "ending", "1", architecture='builder = "tests.engine.tiny:SwitchedNet"')
    key = {"Idempotency-Key": "before-the-end"}
    request = {"model": "ending", "image": image()}
    until(lambda: api.post("/v1/infer", json=request, headers=key).status_code == 200)
    fault.touch()
    job = create(api, [entry("a"), entry("b")], model="ending").json()["job_id"]
    (folder / "retired").touch()
    assert finished(api, job)["status"] == "failed"
    items = api.get(f"/v1/jobs/{job}/results").json()["items"]
    assert [item["error"]["code"] for item in items] == ["model.version_not_found"] * 2
    # An answer that was given is given again.
    again = api.post("/v1/infer", json=request, headers=key)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert code(api.post("/v1/infer", json=request)) == "model.version_not_found"
