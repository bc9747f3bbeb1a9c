"""An id of another tenant answers exactly as one that never was, and costs the same look-ups."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import grpc
import httpx
import pytest
from redis.asyncio import Redis
from tests.calls import BINDINGS, METHODS, name, native, rest
from tests.e2e.test_jobs import entry, finished
from tests.images import star_png

from camserve_server.stores.outbox_mend import PAGE_OF

pytestmark = pytest.mark.timeout(120)

OWN = f"visitor-{uuid4()}"
# What each id can name. An id of none of these is a caller's own word, such as `client_id`.
KINDS = {
    "job_id": ("job",),
    "storage_id": ("upload", "pending", "presigned"),
    "webhook_id": ("webhook",),
    "event_id": ("event",),
    "object_id": ("object", "presigned"),
}
BY_ID = {
    full_name: ids
    for full_name, method in METHODS.items()
    if (ids := [field.name for field in method.input_type.fields if field.name in KINDS])
}
# Where an image may be named instead of sent: the request around its id.
BY_IMAGE = {
    "camserve.v1.InferenceService.Infer": lambda image: {"model": "shapes", "image": image},
    "camserve.v1.InferenceService.InferBatch": lambda image: {
        "model": "shapes",
        "inputs": [{"id": "a", "image": image}],
    },
    "camserve.v1.JobService.CreateJob": lambda image: {"model": "shapes", "inputs": [{"id": "a", "image": image}]},
}
# What every call costs its tenant says nothing of the id, and changes from call to call; the janitor looks now and then
# whether a tenant with work, or with events on their way, has its turn.
BESIDE_THE_CALL = re.compile(
    r"\}:(rate|limits|usage|running)\b"
    r"|^(ZMSCORE \S+:turns|LLEN \S+:queue|ZCARD \S+:leases|SSCAN \S+:endpoints|ZRANGE \S+:(outbox|sending):\S+)\b"
    rf"|^EVALSHA {PAGE_OF.sha}\b"
)


def client(stack, tenant):
    return httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant=tenant), timeout=60)


@pytest.fixture(scope="module")
def theirs(stack):
    """One of everything, made by another tenant."""
    with client(stack, f"host-{uuid4()}") as api:
        job = api.post("/v1/jobs", json={"model": "shapes", "inputs": [entry("a")]}).json()["job_id"]
        finished(api, job)
        png = {"content-type": "image/png"}
        pending = api.post("/v1/uploads:resumable", headers={"tus-resumable": "1.0.0", "upload-length": "100"})
        presigned = api.post("/v1/uploads:presign", json={"media_type": "image/png", "size_bytes": "100"})
        webhook = api.post("/v1/webhooks", json={"url": "https://hooks.example.com/a"}).json()["webhook_id"]
        image = {"bytes": base64.b64encode(star_png()).decode()}
        drawn = api.post("/v1/infer", json={"model": "shapes", "image": image, "grad_cam": {"enabled": True}})
        return {
            "job": job,
            "upload": api.post("/v1/uploads", content=star_png(), headers=png).json()["storage_id"],
            "pending": pending.headers["location"].rpartition("/")[2],
            "presigned": presigned.json()["storage_id"],
            "webhook": webhook,
            "event": api.post(f"/v1/webhooks/{webhook}:test").json()["event_id"],
            "object": urlsplit(drawn.json()["heatmap"]["url"]).path.rpartition("/")[2],
        }


@pytest.fixture(scope="module")
def mine(stack):
    """The caller's own webhook, and tokens of links to the caller's own objects."""
    with client(stack, OWN) as api:
        webhook = api.post("/v1/webhooks", json={"url": "https://hooks.example.com/b"}).json()["webhook_id"]
        image = {"bytes": base64.b64encode(star_png()).decode()}
        drawn = api.post("/v1/infer", json={"model": "shapes", "image": image, "grad_cam": {"enabled": True}}).json()
        presigned = api.post("/v1/uploads:presign", json={"media_type": "image/png", "size_bytes": "100"}).json()
    links = {"Download": drawn["heatmap"]["url"], "PutObject": presigned["upload_url"]}
    return {"webhook": webhook} | {key: parse_qs(urlsplit(link).query)["token"][0] for key, link in links.items()}


def unknown(identifier):
    kind, _, rest_of_it = identifier.partition("_")
    return f"{kind}_{'0' * len(rest_of_it)}"


def pairs(full_name, theirs, mine):
    """Yields the ids of a call twice: those of another tenant, and those that never were."""
    fields = BY_ID[full_name]
    if fields == ["webhook_id", "event_id"]:
        foreign, event = {"webhook_id": theirs["webhook"]}, {"event_id": theirs["event"]}
        never, no_event = {"webhook_id": unknown(theirs["webhook"])}, {"event_id": unknown(theirs["event"])}
        own = {"webhook_id": mine["webhook"]}
        yield foreign | event, never | no_event
        yield foreign | event, never | event
        yield own | event, own | no_event
        return
    (field,) = fields
    for kind in KINDS[field]:
        yield {field: theirs[kind]}, {field: unknown(theirs[kind])}


def extra(full_name, mine):
    """What a call needs besides its ids."""
    link = mine.get(full_name.rpartition(".")[2])
    if link:
        return {"token": link}
    return {"offset": "0"} if full_name.endswith("AppendUpload") else {}


def plain(answer, ids):
    """What was answered or asked, but for the ids that were sent and those that are new every time."""
    text = repr(answer).replace(OWN, "OWN")
    for identifier in ids:
        text = text.replace(identifier, "ID")
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|evt_\w+", "NEW", text)


def test_no_method_that_takes_an_id_is_forgotten():
    named = {
        full_name
        for full_name, method in METHODS.items()
        if re.search(r"'(\w+_id)'", str([field.name for field in method.input_type.fields]))
    }
    assert named - {"camserve.v1.AuthService.IssueToken"} == set(BY_ID)

    def has_image(message, depth=4):
        return message.name == "ImageInput" or (
            depth > 0
            and any(field.message_type and has_image(field.message_type, depth - 1) for field in message.fields)
        )

    assert {full_name for full_name, method in METHODS.items() if has_image(method.input_type)} == set(BY_IMAGE)


@pytest.mark.parametrize("full_name", BY_ID)
async def test_over_grpc_an_id_of_another_tenant_is_an_unknown_id(stack, theirs, mine, full_name):
    token = stack.token(tenant=OWN)
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        for foreign, never in pairs(full_name, theirs, mine):
            answers = [
                plain(await native(channel, METHODS[full_name], token, ids | extra(full_name, mine)), ids.values())
                for ids in (foreign, never)
            ]
            assert answers[0] == answers[1]
            assert re.search(r"NOT_FOUND|signature\.invalid", answers[0])


@pytest.mark.parametrize(
    ("method", "binding"),
    [(method, binding) for method, binding in BINDINGS if name(method) in BY_ID],
    ids=lambda value: getattr(value, "template", getattr(value, "name", None)),
)
def test_over_rest_an_id_of_another_tenant_is_an_unknown_id(stack, theirs, mine, method, binding):
    with client(stack, OWN) as api:
        for foreign, never in pairs(name(method), theirs, mine):
            token = extra(name(method), mine).get("token")
            params = {"token": token} if token else None
            answers = [rest(api, method, binding, ids, params=params) for ids in (foreign, never)]
            assert plain(answers[0], foreign.values()) == plain(answers[1], never.values())
            assert answers[0].status in ((403, 404) if token else (404,)), answers[0]


@pytest.mark.parametrize("full_name", BY_IMAGE)
@pytest.mark.parametrize("kind", KINDS["storage_id"])
async def test_an_image_of_another_tenant_is_an_unknown_image(stack, theirs, full_name, kind):
    ids = (theirs[kind], unknown(theirs[kind]))
    documents = [BY_IMAGE[full_name]({"storage_id": each}) for each in ids]
    token = stack.token(tenant=OWN)
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        answers = [plain(await native(channel, METHODS[full_name], token, each), ids) for each in documents]
    assert answers[0] == answers[1]
    assert "upload.not_found" in answers[0]
    ((method, binding),) = [
        (method, binding) for method, binding in BINDINGS if name(method) == full_name and method.takes_json
    ]
    with client(stack, OWN) as api:
        answers = [plain(rest(api, method, binding, {}, document=each), ids) for each in documents]
    assert answers[0] == answers[1]
    assert "upload.not_found" in answers[0]


@asynccontextmanager
async def commands(stack):
    """Collects what Redis is asked about the caller's tenant."""
    url = json.loads((stack.data_dir / "run" / "stack.json").read_text())["redis_url"]
    redis = Redis.from_url(url)
    # Whoever runs a script first also sends it.
    await redis.script_load(PAGE_OF.source)
    seen = []
    async with redis.monitor() as monitor:
        yield seen
        end = str(uuid4())
        await redis.echo(end)
        while end not in (command := (await monitor.next_command())["command"]):
            if OWN in command and not BESIDE_THE_CALL.search(command):
                seen.append(command)
    await redis.aclose()


async def test_what_is_asked_beside_calls_is_told_from_what_they_ask(stack, mine):
    async with commands(stack) as seen:
        await asyncio.sleep(5)
    assert seen == []


@pytest.mark.parametrize("full_name", BY_ID)
async def test_an_id_of_another_tenant_costs_the_look_ups_of_an_unknown_id(stack, theirs, mine, full_name):
    token = stack.token(tenant=OWN)
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        for foreign, never in pairs(full_name, theirs, mine):
            # Whoever runs a script first also sends it.
            await native(channel, METHODS[full_name], token, never | extra(full_name, mine))
            asked = []
            for ids in (foreign, never):
                async with commands(stack) as seen:
                    await native(channel, METHODS[full_name], token, ids | extra(full_name, mine))
                asked.append(plain(seen, ids.values()))
            assert asked[0] == asked[1]
            # A link's signature is looked at first, and it is of another object.
            assert "OWN" in asked[0] or "token" in extra(full_name, mine)
