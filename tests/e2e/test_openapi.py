"""The OpenAPI document and the edge that serves it: its examples work, and answers are as it says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import Stack
from tests.images import star_png
from tests.openapi import DOCUMENT, conforms, operation, operations, resolved

ROOT = Path(__file__).parents[2]


class Caller:
    """Makes calls as the document describes them, and holds their answers to it."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self._places = {found["operationId"]: (path, verb) for path, verb, found in operations()}

    def __call__(self, name: str, *, status: int, ids: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """Calls an operation; `example=True` sends the example that the document has of it."""
        path, verb = self._places[name]
        described = operation(name)
        if options.pop("example", False):
            options["json"] = described["requestBody"]["content"]["application/json"]["example"]
        answer = self.client.request(verb.upper(), path.format(**(ids or {})), **options)
        assert answer.status_code == status, answer.text
        check(described, answer)
        return answer


def check(described: dict[str, Any], answer: httpx.Response) -> None:
    """Fails where an answer is not as an operation says."""
    told = described["responses"][str(answer.status_code)]
    for name, reference in told["headers"].items():
        header = resolved(reference)
        if header.get("required"):
            assert name.lower() in answer.headers, name
        if name.lower() in answer.headers:
            text = answer.headers[name]
            conforms(int(text) if header["schema"].get("type") == "integer" else text, header["schema"])
    if not answer.content:
        assert "content" not in told
        return
    kind = answer.headers["content-type"].partition(";")[0]
    content = told["content"][kind]
    for value in values(kind, answer):
        conforms(value, content["schema"])
        if "example" in content and isinstance(value, dict):
            assert value.keys() == content["example"].keys()


def values(kind: str, answer: httpx.Response) -> list[Any]:
    if kind == "application/json":
        return [answer.json()]
    if kind == "application/x-ndjson":
        return [json.loads(line) for line in answer.text.splitlines()]
    if kind == "text/event-stream":
        return [{"data": event.removeprefix("data: ")} for event in answer.text.strip().split("\n\n")]
    return []


@pytest.fixture
def call(stack: Stack) -> Iterator[Caller]:
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant="openapi"), timeout=30) as client:
        yield Caller(client)


@pytest.fixture
def stranger(stack: Stack) -> Iterator[Caller]:
    with httpx.Client(base_url=stack.edge_url, timeout=30) as client:
        yield Caller(client)


def test_anybody_may_have_the_document(stranger: Caller) -> None:
    answer = stranger("GetOpenApi", status=200)
    assert answer.text == (ROOT / "docs/api/openapi.json").read_text()
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_may_load_and_run_nothing(stranger: Caller) -> None:
    answer = stranger("GetReferencePage", status=200)
    rules = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    style = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert not re.search(r"<script|<link|<img|<iframe|\sstyle=|\son\w+=|src=|url\(", answer.text)


def test_the_page_shows_every_operation_and_every_message(stranger: Caller) -> None:
    page = stranger("GetReferencePage", status=200).text
    names = re.findall(r' id="([^"]+)"', page)
    assert len(set(names)) == len(names)
    assert {found["operationId"] for _, _, found in operations()} <= set(names)
    assert {f"message-{name}" for name in DOCUMENT["components"]["schemas"]} <= set(names)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(names)


def test_health_and_keys(stranger: Caller) -> None:
    stranger("GetHealth", status=200)
    stranger("GetJwks", status=200)


def test_a_token(stack: Stack, stranger: Caller) -> None:
    made = dict(line.split("=", 1) for line in stack.camserve("client", "create", "--tenant", "openapi").stdout.split())
    form = operation("IssueToken")["requestBody"]["content"]["application/x-www-form-urlencoded"]["example"]
    conforms(form, operation("IssueToken")["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"])
    stranger("IssueToken", status=200, data=form | made)
    stranger("IssueToken", status=401, data=form)
    stranger("IssueToken", status=400, data={"grant_type": "password"})


def test_one_image(call: Caller, stranger: Caller) -> None:
    answer = call("Infer", status=200, example=True)
    assert answer.json()["classes"][0]["id"] == "circle"
    receipt = call("Infer", status=202, example=True, headers={"prefer": "respond-async", "idempotency-key": "openapi"})
    assert receipt.json()["job_id"] in receipt.headers["location"]
    url = httpx.URL(answer.json()["heatmap"]["url"])
    link = {"ids": {"object_id": url.path.rpartition("/")[2]}, "params": dict(url.params)}
    assert stranger("Download", status=200, **link).headers["content-type"] == "image/png"
    assert len(stranger("Download", status=206, headers={"range": "bytes=0-9"}, **link).content) == 10
    stranger("DownloadHead", status=200, **link)
    stranger("Download", status=403, ids=link["ids"], params={"token": "x"})


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream"])
def test_one_image_as_the_body_itself(call: Caller, kind: str) -> None:
    asked = {"model": "shapes", "classify.top_k": 1, "grad_cam.enabled": "true", "grad_cam.resolution.width": 20}
    asked["grad_cam.resolution.height"] = 10
    described = {each["name"] for each in operation("Infer")["parameters"] if each.get("in") == "query"}
    assert asked.keys() <= described
    assert kind in operation("Infer")["requestBody"]["content"]
    answer = call("Infer", status=200, params=asked, content=star_png(), headers={"content-type": kind})
    assert len(answer.json()["classes"]) == 1
    assert answer.json()["heatmap"]["width"] == 20


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "shapes", "classify.top_k": "1", "grad_cam.enabled": "true"},
        {"request": '{"model": "shapes", "grad_cam": {"enabled": true}}'},
    ],
)
def test_one_image_in_a_form(call: Caller, fields: dict[str, str]) -> None:
    schema = operation("Infer")["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert fields.keys() <= schema["properties"].keys()
    call("Infer", status=200, data=fields, files={"image": ("star.png", star_png(), "image/png")})


def test_a_batch_in_both_forms(call: Caller) -> None:
    for kind in ("application/x-ndjson", "text/event-stream"):
        answer = call("InferBatch", status=200, example=True, headers={"accept": kind})
        assert answer.headers["content-type"] == kind
        assert len(values(kind, answer)) == 3


def test_a_job(call: Caller) -> None:
    job = {"job_id": call("CreateJob", status=202, example=True).json()["job_id"]}
    for kind in ("application/x-ndjson", "text/event-stream"):
        events = values(kind, call("WatchJob", status=200, ids=job, headers={"accept": kind}))
        assert events
        for event in events:
            if kind == "text/event-stream":
                conforms(json.loads(event["data"]), {"$ref": "#/components/schemas/JobEvent"})
    call("GetJob", status=200, ids=job)
    call("ListJobResults", status=200, ids=job)
    call("ListJobs", status=200, params={"limit": 1, "created_after": "2020-01-01T00:00:00Z"})
    call("CancelJob", status=409, ids=job)
    call("GetJob", status=404, ids={"job_id": "job_" + 20 * "0"})
    call("ListJobs", status=400, params={"limit": 0})


def test_uploads(call: Caller, stranger: Caller) -> None:
    image = {"content": star_png(), "headers": {"content-type": "image/png"}}
    made = call("UploadImage", status=201, **image).json()
    assert made["size_bytes"] == str(len(star_png()))
    name = {"storage_id": made["storage_id"]}
    call("UploadImage", status=201, files={"image": ("star.png", star_png(), "image/png")})
    call("GetUpload", status=200, ids=name)
    call("DeleteUpload", status=204, ids=name)
    call("GetUpload", status=404, ids=name)
    call("PresignUpload", status=201, example=True)
    # Sizes are read from texts and from numbers.
    for size_bytes in (len(star_png()), str(len(star_png()))):
        link = call("PresignUpload", status=201, json={"media_type": "image/png", "size_bytes": size_bytes}).json()
        url = httpx.URL(link["upload_url"])
        target = {"ids": {"object_id": url.path.rpartition("/")[2]}, "params": dict(url.params)}
        stranger("PutObject", status=201, **target, **image)
    stranger("PutObject", status=409, **target, **image)


def test_a_resumable_upload(call: Caller) -> None:
    tus = {"tus-resumable": "1.0.0"}
    call("GetUploadProtocol", status=204, headers=tus)
    begun = call("StartUpload", status=201, headers={**tus, "upload-length": str(len(star_png()))}).json()
    name = {"storage_id": begun["storage_id"]}
    call("GetUploadProgress", status=200, ids=name, headers=tus)
    piece = {**tus, "upload-offset": "0", "content-type": "application/offset+octet-stream"}
    call("AppendUpload", status=204, ids=name, headers=piece, content=star_png())
    call("StartUpload", status=412, headers={"tus-resumable": "2.0.0"})
    call("StartUpload", status=411)


def test_webhooks(call: Caller) -> None:
    name = {"webhook_id": call("CreateWebhook", status=201, example=True).json()["webhook_id"]}
    event = {"event_id": call("TestWebhook", status=202, ids=name).json()["event_id"]}
    call("Redeliver", status=202, ids=name | event)
    call("ListDeliveries", status=200, ids=name)
    call("RotateWebhookSecret", status=200, ids=name)
    call("GetWebhook", status=200, ids=name)
    call("ListWebhooks", status=200)
    call("GetCallbackSecret", status=200)
    call("DeleteWebhook", status=204, ids=name)


def test_models_and_limits(call: Caller) -> None:
    call("ListModels", status=200)
    call("GetModel", status=200, ids={"model": "shapes"}, params={"view": "full"})
    call("GetModel", status=404, ids={"model": "nobody"})
    call("GetLimits", status=200)


def test_without_a_token_every_other_operation_is_refused_as_told(stranger: Caller) -> None:
    for path, verb, described in operations():
        if described["security"] and {} not in described["security"]:
            ids = dict.fromkeys(re.findall(r"{(\w+)}", path), "job_" + 20 * "0")
            answer = stranger.client.request(verb.upper(), path.format(**ids))
            assert answer.status_code == 401
            check(described, answer) if verb != "head" else None
