"""Canaries with planted faults on two replicas behind one edge: each is rolled back, and a sound one is not."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import signal
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from tests.conftest import camserve_program
from tests.engine.planted import COLOURS, picture
from tests.engine.tiny import write_model
from tests.faults.model_callers import change_routes, metric
from tests.faults.pair import Pair, pair

from camserve.v1 import admin_pb2_grpc
from camserve.v1 import model_routes_pb2 as pb
from camserve.v1.model_watch_pb2 import WatchModelRequest
from camserve_server.base.config import load
from camserve_server.cli.tokens import issuer

pytestmark = pytest.mark.timeout(120)

SOUND = "sound"
CROPPED = 'width = 48\nheight = 48\nfit = "crop"\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]'
PLANTED = {
    "slow": {"architecture": 'builder = "tests.engine.planted:SlowNet"'},
    "failing": {"architecture": 'builder = "tests.engine.planted:FailingNet"'},
    "watermark": {"architecture": 'builder = "tests.engine.planted:WatermarkNet"'},
    SOUND: {"architecture": 'builder = "tests.engine.planted:CoarseNet"', "input": CROPPED},
}
# A busy machine must not make those slow that are not meant to be.
ANY_LATENCY = 1000
GUARDS = {
    "slow": pb.ModelGuard(min_calls=10, max_latency_ratio=4),
    # More than fail before the breakers of two replicas open: calls that those refuse count.
    "failing": pb.ModelGuard(min_calls=40, max_latency_ratio=ANY_LATENCY),
    "watermark": pb.ModelGuard(min_calls=10, max_latency_ratio=ANY_LATENCY),
    SOUND: pb.ModelGuard(min_calls=10, max_latency_ratio=20),
}
CANARY = pb.ModelCanary(version="2", percent=50, by="key", shadow_percent=100)
PICTURES = [base64.b64encode(picture(colour)).decode() for colour in COLOURS]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Two replicas; version 1 of each model names colours by the middle of a picture, version 2 has the fault."""
    models_dir = tmp_path_factory.mktemp("models")
    for name, tables in PLANTED.items():
        write_model(models_dir, name, "1", architecture='builder = "tests.engine.planted:CentreNet"')
        write_model(models_dir, name, "2", top="", **tables)
    with pytest.MonkeyPatch.context() as patched:
        root = str(Path(__file__).parents[2])
        patched.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
        with pair(tmp_path_factory.mktemp("two"), models_dir=models_dir, queue_wait_s=20, lame_duck_s=0) as two:
            asyncio.run(begin(two))
            yield two


@pytest.fixture
def interruptible():
    """Lets Ctrl-C reach programs that are started here, although a shell has what runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def begin(running: Pair) -> None:
    """Starts the canaries."""
    for model, guard in GUARDS.items():
        for change in ({"guard": guard}, {"canary": CANARY}):
            await change_routes(running, running.replicas[0], model=model, **change)


def command(running: Pair, *arguments):
    return subprocess.run(
        [camserve_program(), "models", *arguments],
        env=running.replicas[0].environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def interrupted(running: Pair) -> None:
    """Watches in a pipe until there were two looks, and interrupts that as Ctrl-C does."""
    program = [camserve_program(), "models", "watch", SOUND, "--interval", "1"]
    with subprocess.Popen(
        program, env=running.replicas[0].environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        heads = (line for line in watching.stdout if line.startswith(f"{SOUND}  revision 2"))
        assert next(heads) != next(heads)
        watching.send_signal(signal.SIGINT)
        assert (watching.wait(20), watching.stderr.read()) == (0, "")


@asynccontextmanager
async def calling(running: Pair, model: str):
    """Calls for heatmaps in turn, half of them for the canary, as long as this is entered; gives the answers."""
    answers: list[httpx.Response] = []
    headers = {"authorization": f"Bearer {running.token()}"}
    async with httpx.AsyncClient(base_url=running.edge_url, headers=headers, timeout=60, trust_env=False) as api:

        async def call():
            for turn in itertools.count():
                image = {"bytes": PICTURES[turn % len(PICTURES)]}
                body = {
                    "model": model,
                    "image": image,
                    "grad_cam": {"enabled": True},
                    "response": {"heatmap": "inline"},
                }
                answers.append(await api.post("/v1/infer", json=body, headers={"route-key": f"key-{turn}"}))

        task = asyncio.create_task(call())
        yield answers
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def admin(running: Pair):
    """The administration of the second replica, and what each call of it takes."""
    token = issuer(load(data_dir=running.data_dir)).issue(tenant="operator", subject="ann", scopes=("admin",), ttl_s=60)
    target = f"127.0.0.1:{running.replicas[1].environment['CAMSERVE_INTERNAL_PORT']}"
    async with grpc.aio.insecure_channel(target) as channel:
        yield admin_pb2_grpc.AdminServiceStub(channel), {"metadata": (("authorization", f"Bearer {token}"),)}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("slow", "p95 latency"),
        ("failing", "error rate"),
        ("watermark", "heatmap IoU 0 below 0.3"),
    ],
)
async def test_a_canary_with_a_fault_is_rolled_back_once_and_the_reason_is_kept(running: Pair, model, told):
    request = pb.GetModelRoutesRequest(model=model)
    async with calling(running, model) as answers, admin(running) as (stub, options):
        while (known := await stub.GetModelRoutes(request, **options)).routes.HasField("canary"):
            await asyncio.sleep(0.1)
        for replica in running.replicas:
            while await metric(replica, "camserve_model_routes_revision", model=model) != known.routes.revision:
                await asyncio.sleep(0.02)
        since = len(answers)
        while len(answers) < since + 20:
            await asyncio.sleep(0.02)
    last = known.changes[0]
    assert (known.routes.revision, last.revision, last.by, last.what) == (3, 3, "camserve", "end canary")
    assert last.why.startswith("canary 2 rolled back: ")
    assert told in last.why
    # The first of these may have been under way.
    assert {(answer.status_code, answer.json()["model_version"]) for answer in answers[since + 1 :]} == {(200, "1")}
    made = [await metric(replica, "camserve_model_rollbacks_total", model=model) for replica in running.replicas]
    assert sum(made) == 1
    logs = "".join(replica.log.read_text() for replica in running.replicas)
    assert sum("a canary is rolled back" in line and f'"model":"{model}"' in line for line in logs.splitlines()) == 1


@pytest.mark.usefixtures("interruptible")
async def test_a_sound_canary_of_another_size_and_fit_stays(running: Pair):
    async with calling(running, SOUND), admin(running) as (stub, options):
        async for seen in stub.WatchModel(WatchModelRequest(model=SOUND, interval_s=1), **options):
            assert seen.routes.HasField("canary"), seen
            if {check.state for check in seen.checks} == {"kept"}:
                break
        shown = await asyncio.to_thread(command, running, "watch", SOUND, "--once")
    assert {(each.version, each.role) for each in seen.versions} == {("1", "answer"), ("2", "answer"), ("2", "shadow")}
    (agreement,) = seen.agreements
    assert (agreement.version, agreement.against, agreement.agreeing) == ("2", "1", agreement.pictures)
    assert agreement.heatmap_iou > 0.5
    assert agreement.centre_shift < 0.05
    await asyncio.to_thread(interrupted, running)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "canary 2: 50 % of stable by key, sees 100 % of the rest" in shown.stdout
    assert "heatmap iou" in shown.stdout
