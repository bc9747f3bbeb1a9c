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
import numpy as np
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
START_WITHIN_S = 60.0


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
        stack = start_stack(tmp_path_factory.mktemp("stack"), replica_count=1)
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


def until(condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
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
            until(ready.exists, START_WITHIN_S)
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


def golden_copy(running: Stack, name: str, change: Callable[[Path], None]) -> None:
    """Makes a model of the bundled one's files, changed, and moves it to where it is found."""
    draft = running.data_dir / "models" / f".{name}"
    folder = shutil.copytree(running_models() / "shapes" / "2", draft / "2")
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text().replace('name = "shapes"', f'name = "{name}"'))
    change(folder)
    draft.rename(running.data_dir / "models" / name)


def running_models() -> Path:
    return Path(__file__).parents[2] / "models"


def test_golden_inputs_are_sent_to_the_running_service(running, api):
    told = running.camserve("models", "verify", "shapes")
    assert (told.returncode, told.stderr) == (0, "")
    lines = told.stdout.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "shapes 2  passed: 10 pictures",
        "shapes 1  passed: 10 pictures",
    ]
    assert running.camserve("models", "verify", "shapes", "1").stdout == lines[1] + "\n"
    listed = api.get("/v1/models/shapes").json()["versions"][0]
    assert infer(api, "shapes").json()["content_sha256"] == listed["content_sha256"]
    (line,) = [line for line in running.camserve("models", "list").stdout.splitlines() if line.startswith("shapes 2")]
    assert "(stable)  ready, 10 classes, golden inputs passed, " in line
    assert line.endswith(f"MB, content {listed['content_sha256'][:12]}")


def other_heatmap(folder: Path) -> None:
    file = folder / "golden" / "star.npy"
    np.save(file, np.load(file)[::-1])


def other_probability(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["cases"][0]["probs"]["circle"] -= 0.01
    (folder / "golden.json").write_text(json.dumps(golden))


def other_class(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["cases"][0]["top"] = "heart"
    (folder / "golden.json").write_text(json.dumps(golden))


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (other_heatmap, "golden/star.png: the heatmap is off by "),
        (other_probability, "golden/circle.png: a probability is off by 1.0e-02"),
        (other_class, "golden/circle.png: another top class"),
    ],
)
def test_an_answer_other_than_the_golden_one_is_told(running, api, change, difference):
    name = change.__name__.replace("_", "-")
    golden_copy(running, name, change)
    until(lambda: states(api, name) == {"2": "ready"})
    assert api.get(f"/v1/models/{name}").json()["versions"][0]["golden"] == "failed"
    told = running.camserve("models", "verify", name)
    assert (told.returncode, told.stderr) == (1, "")
    assert told.stdout.startswith(f"{name} 2  FAILED: {difference}")


def test_a_version_whose_golden_inputs_come_out_otherwise_by_now_is_not_promoted(running, api):
    golden_copy(running, "drifting", lambda folder: None)
    until(lambda: states(api, "drifting") == {"2": "ready"})
    assert running.camserve("models", "promote", "drifting", "2", "--alias", "sound").returncode == 0
    other_class(running.data_dir / "models" / "drifting" / "2")
    for change in (["promote", "drifting", "2", "--alias", "next"], ["pin", "drifting", "acme", "2"]):
        refused = running.camserve("models", *change)
        assert refused.returncode == 1
        assert "its golden inputs failed: case 1: another top class" in refused.stderr
    assert api.get("/v1/models/drifting").json()["versions"][0]["golden"] == "failed"


def test_a_service_that_has_other_content_than_the_folder_is_told(running, api):
    golden_copy(running, "changing", lambda folder: None)
    until(lambda: states(api, "changing") == {"2": "ready"})
    manifest = running.data_dir / "models" / "changing" / "2" / "model.toml"
    manifest.write_text(manifest.read_text() + "\n")
    told = running.camserve("models", "verify", "changing", "2")
    assert told.returncode == 1
    assert told.stdout == "changing 2  FAILED: the server has loaded other content than lies in the folder here\n"
    absent = running.camserve("models", "verify", "changing", "3")
    assert (absent.returncode, absent.stderr) == (1, "camserve: the server has no model changing 3\n")


def test_a_version_is_retired_by_a_command(running, api, tmp_path):
    appear(running, tmp_path, "old", "1", top="")
    appear(running, tmp_path, "old", "2")
    until(lambda: states(api, "old") == {"1": "ready", "2": "ready"})
    assert infer(api, "old").status_code == infer(api, "old", "1").status_code == 200
    metrics = f"http://127.0.0.1:{running.metrics_port}/metrics"
    kept = ('engine_queue{model="old"', 'circuit_state{name="old/', 'batch_images_count{model="old"')
    assert all(f"camserve_{one}" in httpx.get(metrics).text for one in kept)
    refused = running.camserve("models", "retire", "old", "2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "camserve: stable leads to old 2: lead it elsewhere first, or add --force\n"
    for change in (["promote", "old", "1"], ["rollback", "old"], ["pin", "old", "acme", "1"]):
        assert running.camserve("models", *change).returncode == 0
    refused = running.camserve("models", "retire", "old", "1")
    assert refused.stderr == (
        "camserve: the pin of acme, a rollback of stable lead to old 1: lead them elsewhere first, or add --force\n"
    )
    added = running.camserve("models", "promote", "old", "1", "--alias", "9")
    assert added.returncode == 0
    appear(running, tmp_path, "old", "9", top="")
    until(lambda: infer(api, "old", "9").json().get("model_version") == "9")
    assert running.camserve("models", "unalias", "old", "9").returncode == 0
    assert running.camserve("models", "retire", "old", "9").returncode == 0
    for arguments in (["old", "1", "--force"], ["old", "2", "--force"]):
        retired = running.camserve("models", "retire", *arguments)
        assert (retired.returncode, retired.stdout) == (0, f"old {arguments[1]} is retired\n")
    assert set(states(api, "old").values()) == {"retired"}
    assert {code(infer(api, "old", version)) for version in ("", "1", "2")} == {"model.version_not_found"}
    until(lambda: not any(f"camserve_{one}" in httpx.get(metrics).text for one in kept))
    assert running.camserve("models", "retire", "old", "3").returncode == 1
    # A bundled version too, whose folder is nobody's to write to; and it comes back.
    assert running.camserve("models", "retire", "shapes", "1").returncode == 0
    assert code(infer(api, "shapes", "1")) == "model.version_not_found"
    assert "shapes 1" not in running.camserve("models", "verify", "shapes").stdout
    (running.data_dir / "models" / "shapes" / "1" / "retired").unlink()
    until(lambda: infer(api, "shapes", "1").status_code == 200)


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


def test_a_version_whose_loading_hangs_keeps_a_replica_neither_from_starting_nor_from_ending(running, tmp_path):
    folder = write_model(tmp_path / "other", "hangs", architecture='builder = "tests.engine.tiny:HeldNet"').parents[1]
    write_model(folder, "sound")
    # The end is that of the context: a process that does not end makes the test run out of time.
    with replica(running, models_dir=folder, model_load_wait_s=1) as told:
        assert (told("hangs"), told("sound")) == ({"1": "loading"}, {"1": "ready"})


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
