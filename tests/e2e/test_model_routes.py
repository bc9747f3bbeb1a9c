"""Three replicas behind one edge, and routes that change: promotions, canaries, pins and rollbacks."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from uuid import uuid4

import grpc
import httpx
import pytest
from tests.conftest import camserve_program
from tests.e2e.test_jobs import entry, finished
from tests.faults.model_callers import BATCH, ONE, ModelCallers, change_routes, metric, seen_everywhere
from tests.faults.pair import Pair, pair
from tests.images import star_png

from camserve.v1 import inference_pb2, inference_pb2_grpc
from camserve.v1 import model_routes_pb2 as pb

pytestmark = pytest.mark.timeout(300)
Change = pb.ChangeModelRoutesRequest
IMAGE = {"bytes": base64.b64encode(star_png()).decode()}
BODY = {"model": "shapes", "image": IMAGE}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with pair(tmp_path_factory.mktemp("three"), names="abc", queue_wait_s=20) as three:
        yield three


@pytest.fixture
async def routes(running: Pair):
    """Makes changes and returns once every replica knows them; afterwards `stable` is version 2, as before."""

    async def change(replica=0, **change):
        made = await change_routes(running, running.replicas[replica], **change)
        await seen_everywhere(running, made.after.revision)
        return made.after

    yield change
    for undo in ({"end_canary": Change.EndCanary()}, {"promote": Change.Promote(version="2")}):
        after = await change(**undo)
    for tenant in after.pins:
        await change(unpin=Change.Unpin(tenant=tenant))
    for version in after.deprecations:
        await change(end_deprecation=Change.EndDeprecation(version=version))


def client(running: Pair, tenant="tests"):
    headers = {"authorization": f"Bearer {running.token(tenant)}"}
    return httpx.Client(base_url=running.edge_url, headers=headers, timeout=60, trust_env=False)


def version(api, **headers):
    answer = api.post("/v1/infer", json=BODY, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["model_version"]


def command(running: Pair, *arguments):
    return subprocess.run(
        [camserve_program(), "models", *arguments],
        env=running.replicas[0].environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def answers(api, **asked):
    """Returns which version answers by every way in."""
    query = {"model": "shapes"} | asked
    form = {"files": {"image": star_png()}, "data": query}
    raw = {"params": query, "content": star_png(), "headers": {"content-type": "image/png"}}
    inputs = {"inputs": [entry(f"i{n}") for n in range(4)]}
    lines = api.post("/v1/infer:batch", json={"model": "shapes"} | inputs | asked).text.splitlines()
    job = api.post("/v1/jobs", json={"model": "shapes"} | inputs | asked).json()["job_id"]
    turned = api.post("/v1/infer", json=BODY | asked, headers={"prefer": "respond-async"}).json()
    assert finished(api, turned["job_id"])["model_version"] == turned["model_version"]
    finished(api, job)
    results = api.get(f"/v1/jobs/{job}/results").json()["items"]
    return {
        "JSON": {api.post("/v1/infer", json=BODY | asked).json()["model_version"]},
        "multipart": {api.post("/v1/infer", **form).json()["model_version"]},
        "raw": {api.post("/v1/infer", **raw).json()["model_version"]},
        "batch": {result for line in lines if (result := _version_of(line))},
        "job": {item["result"]["model_version"] for item in results},
        "a call that became a job": {turned["model_version"]},
    }


def _version_of(line):
    document = json.loads(line)
    return document["item"]["result"]["model_version"] if document["event"] == "item" else None


async def test_by_every_way_in_the_version_answers_to_which_the_routes_lead(running: Pair, routes):
    with client(running) as api:
        for expected in ("1", "2"):
            await routes(promote=Change.Promote(version=expected))
            assert set(map(frozenset, answers(api).values())) == {frozenset({expected})}
        assert set(map(frozenset, answers(api, model_version="1").values())) == {frozenset({"1"})}


async def test_jobs_and_answers_given_again_keep_their_version(running: Pair, routes):
    await routes(promote=Change.Promote(version="1"))
    with client(running) as api:
        keys = {"infer": {"idempotency-key": str(uuid4())}, "job": {"idempotency-key": str(uuid4())}}
        turn = keys["job"] | {"prefer": "respond-async"}
        upload = {"params": {"model": "shapes"}, "content": star_png()}
        upload["headers"] = {"content-type": "image/png", "idempotency-key": str(uuid4())}
        first = [api.post("/v1/infer", json=BODY, headers=headers).json() for headers in (keys["infer"], turn)]
        first.append(api.post("/v1/infer", **upload).json())
        await routes(promote=Change.Promote(version="2"))
        again = [api.post("/v1/infer", json=BODY, headers=headers).json() for headers in (keys["infer"], turn)]
        again.append(api.post("/v1/infer", **upload).json())
        assert again == first
        assert {answer["model_version"] for answer in again} == {"1"}
        assert finished(api, first[1]["job_id"])["result"]["model_version"] == "1"
        assert version(api) == "2"


async def test_a_pinned_tenant_stays_through_promotion_canary_and_rollback(running: Pair, routes):
    await routes(pin=Change.Pin(tenant="acme", version="2"))
    with client(running, "acme") as acme, client(running) as other:
        await routes(promote=Change.Promote(version="1"))
        assert (version(acme), version(other)) == ("2", "1")
        await routes(1, rollback=Change.Rollback())
        assert (version(acme), version(other)) == ("2", "2")
        await routes(canary=pb.ModelCanary(version="1", percent=100, tenants=["acme"]))
        assert (version(acme), version(other)) == ("2", "1")
        await routes(2, rollback=Change.Rollback())
        assert (version(acme), version(other)) == ("2", "2")
        assert acme.post("/v1/infer", json=BODY | {"model_version": "1"}).json()["model_version"] == "1"
        await routes(promote=Change.Promote(version="1"))
        await routes(unpin=Change.Unpin(tenant="acme"))
        assert version(acme) == "1"


async def test_a_canary_by_key_keeps_each_key_on_its_version_on_every_replica(running: Pair, routes):
    await routes(canary=pb.ModelCanary(version="1", percent=40, by="key"))
    with client(running) as api:
        keys = [f"patient-{n}" for n in range(40)]
        first = {key: version(api, **{"route-key": key}) for key in keys}
        assert set(first.values()) == {"1", "2"}
        for _ in range(3):
            assert {key: version(api, **{"route-key": key}) for key in keys} == first
        # Without a Route-Key it is the Idempotency-Key that counts.
        assert {key: version(api, **{"idempotency-key": key}) for key in keys} == first
        await routes(canary=pb.ModelCanary(version="1", percent=80, by="key"))
        grown = {key: version(api, **{"route-key": key}) for key in keys}
        assert all(grown[key] == "1" for key, was in first.items() if was == "1")


async def test_a_version_that_ends_says_so_in_every_answer_it_gives(running: Pair, routes):
    dates = pb.ModelDeprecation(link="https://example.com/shapes-1", successor="2")
    dates.deprecated_at.FromSeconds(1_798_761_600)
    dates.sunset_at.FromSeconds(1_814_400_000)
    await routes(deprecate=Change.Deprecate(version="1", deprecation=dates))
    told = {
        "deprecation": "@1798761600",
        "sunset": "Thu, 01 Jul 2027 00:00:00 GMT",
        "link": '<https://example.com/shapes-1>; rel="deprecation"',
    }
    asked = {"model_version": "1"}
    with client(running) as api:
        made = [
            api.post("/v1/infer", json=BODY | asked),
            api.post("/v1/infer", json=BODY | asked, headers={"prefer": "respond-async"}),
            api.post("/v1/infer", files={"image": star_png()}, data={"model": "shapes"} | asked),
            api.post("/v1/infer:batch", json={"model": "shapes", "inputs": [entry("a")]} | asked),
            api.post("/v1/jobs", json={"model": "shapes", "inputs": [entry("a")]} | asked),
        ]
        assert [answer.status_code for answer in made] == [200, 202, 200, 200, 202]
        job = made[-1].json()["job_id"]
        finished(api, job)
        made += [api.get(f"/v1/jobs/{job}{of_it}") for of_it in ("", "/results", "/events")]
        for answer in made:
            assert {name: answer.headers[name] for name in told} == told
        assert "deprecation" not in api.post("/v1/infer", json=BODY).headers
        versions = {each["version"]: each for each in api.get("/v1/models/shapes").json()["versions"]}
        assert versions["1"]["deprecation"] == {
            "deprecated_at": "2027-01-01T00:00:00Z",
            "sunset_at": "2027-07-01T00:00:00Z",
            "link": "https://example.com/shapes-1",
            "successor": "2",
        }
        assert "deprecation" not in versions["2"]
    target = f"127.0.0.1:{running.replicas[1].environment['CAMSERVE_GRPC_PORT']}"
    async with grpc.aio.insecure_channel(target) as channel:
        call = inference_pb2_grpc.InferenceServiceStub(channel).Infer(
            inference_pb2.InferRequest(model="shapes", image=inference_pb2.ImageInput(bytes=star_png()), **asked),
            metadata=(("authorization", f"Bearer {running.token()}"),),
        )
        assert told.items() <= dict(await call.initial_metadata()).items()
        await call


async def test_while_the_store_is_away_the_last_routes_hold_and_no_replica_starts(running: Pair, routes):
    await routes(promote=Change.Promote(version="1"))
    last = running.replicas[2]
    await asyncio.to_thread(last.end)
    running.store.kill()
    try:
        with client(running) as api:
            assert [version(api) for _ in range(8)] == ["1"] * 8
            refused = command(running, "promote", "shapes", "2")
            assert (refused.returncode, refused.stderr) == (1, "camserve: The state store cannot be reached.\n")
        last.start()
        assert await asyncio.to_thread(last.running.wait, 60) == 1
        assert "The state store cannot be reached." in last.log.read_text()
    finally:
        running.store.start()
    await running.start_again(last)
    await routes(2, promote=Change.Promote(version="2"))
    with client(running) as api:
        assert [version(api) for _ in range(8)] == ["2"] * 8


async def test_a_replica_with_little_memory_begins_with_what_the_routes_lead_to(running: Pair, routes):
    await routes(promote=Change.Promote(version="1"))
    last = running.replicas[2]
    usual = last.environment
    request = inference_pb2.InferRequest(model="shapes", image=inference_pb2.ImageInput(bytes=star_png()))
    await asyncio.to_thread(last.end)
    try:
        # Less than any version takes: by the manifests, `stable` would be the other one.
        last.environment = usual | {"CAMSERVE_MODELS_MEMORY_MB": "1"}
        await running.start_again(last)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{usual['CAMSERVE_GRPC_PORT']}") as channel:
            infer = inference_pb2_grpc.InferenceServiceStub(channel).Infer
            answer = await infer(request, metadata=[("authorization", f"Bearer {running.token()}")])
        assert answer.model_version == "1"
    finally:
        await asyncio.to_thread(last.end)
        last.environment = usual
        await running.start_again(last)


async def test_a_shadow_sees_calls_on_every_replica_and_answers_none(running: Pair, routes):
    before = [await shown(replica) for replica in running.replicas]
    await routes(shadow=pb.ModelShadow(version="1", percent=100))
    with client(running) as api:
        for replica, was in zip(running.replicas, before, strict=True):
            while await shown(replica) == was:
                assert version(api) == "2"
    await routes(end_shadow=Change.EndShadow())


async def shown(replica):
    """Returns how many calls version 1 has seen."""
    return await metric(replica, "camserve_model_calls_total", model="shapes", version="1", role="shadow")


async def test_commands_print_the_routes_before_and_after_and_refuse_a_stale_revision(running: Pair, routes):
    for chosen in ("1", "2"):
        await routes(promote=Change.Promote(version=chosen), why="as it was")
    start = (await routes(pin=Change.Pin(tenant="acme", version="2"))).revision
    done = command(running, "promote", "shapes", "1", "--revision", str(start), "--why", "smaller")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:4] == [
        f"shapes  revision {start} -> {start + 1}",
        "before",
        "  stable -> 2, before 1",
        "  pin acme -> 2",
    ]
    assert "  stable -> 1, before 2" in done.stdout.partition("after")[2].splitlines()
    stale = command(running, "promote", "shapes", "2", "--revision", str(start))
    assert stale.returncode == 1
    assert stale.stderr.strip() == (
        f"camserve: The routes were changed meanwhile. (expected_revision {start}, revision {start + 1})"
    )
    told = command(running, "routes", "shapes").stdout
    assert "promote 1 to stable: smaller" in told
    printed = {}
    for arguments in (
        ("rollback", "shapes"),
        ("promote", "shapes", "1", "--alias", "next"),
        ("unalias", "shapes", "next"),
        ("canary", "shapes", "1", "--percent", "5", "--tenants", "widgets, acme"),
        ("canary", "shapes", "--end"),
        ("guard", "shapes", "--max-error-rate", "0.1", "--window-s", "60"),
        ("guard", "shapes", "--end"),
        ("shadow", "shapes", "1", "--percent", "50"),
        ("shadow", "shapes", "--end"),
        ("deprecate", "shapes", "1", "--on", "2027-01-01", "--sunset", "2027-07-01"),
        ("deprecate", "shapes", "1", "--end"),
        ("pin", "shapes", "widgets", "1"),
        ("unpin", "shapes", "widgets"),
    ):
        done = command(running, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        printed.setdefault(arguments[0], done.stdout)
    assert "canary 1: 5 % of stable by tenant, all calls of widgets, acme, sees 100 % of the rest" in printed["canary"]
    assert "guard: last 60 s, min calls 50, max error rate 0.1, max latency ratio 2, " in printed["guard"]
    await seen_everywhere(running, start + 14)
    for arguments in (
        ("promote", "shapes", "9"),
        ("deprecate", "shapes", "1", "--on", "soon"),
        ("canary", "shapes"),
        ("guard", "shapes", "--min-calls", "1"),
        ("watch", "none", "--once"),
    ):
        refused = command(running, *arguments)
        assert (refused.returncode, refused.stdout) == (1, ""), arguments
        assert refused.stderr.startswith("camserve: ")
    assert command(running, "routes").stdout.startswith(f"shapes  revision {start + 14}\n  stable -> 2, before 1\n")


async def test_switches_under_load_fail_no_call_mix_no_answer_and_move_no_pinned_tenant(running: Pair, routes):
    await routes(pin=Change.Pin(tenant="pinned", version="2"))
    callers = ModelCallers(running.edge_url, {tenant: running.token(tenant) for tenant in ("free", "pinned")})
    await callers.learn(["1", "2"])
    async with callers.calling([ONE, ONE, BATCH]):
        await callers.until(10)
        for turn, (expected, change) in enumerate(
            [
                ("1", {"promote": Change.Promote(version="1")}),
                ("2", {"rollback": Change.Rollback()}),
                ("1", {"canary": pb.ModelCanary(version="1", tenants=["free"])}),
                ("2", {"rollback": Change.Rollback()}),
            ]
        ):
            await routes(turn % 3, **change)
            await callers.until_only(expected, "free", calls=12)
    assert {one.status for one in callers.heard} == {200}
    assert not any(one.mixed for one in callers.heard)
    assert {one.versions for one in callers.heard if one.tenant == "pinned"} == {frozenset({"2"})}
    assert {one.versions for one in callers.heard if one.tenant == "free"} == {frozenset({"1"}), frozenset({"2"})}
