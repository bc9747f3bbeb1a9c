"""Everything on the gRPC port, listed, described and called with the real grpcurl."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.images import star_png

from camserve_server.rpc.server import services

GRPCURL = Path(__file__).parents[2] / "toolchains" / "bin" / "grpcurl"


@pytest.fixture
def grpcurl(stack):
    def run(*arguments: str, data: object = None, token: str | None = stack.token()) -> str:
        messages = data if isinstance(data, list) else [data]
        options = ["-plaintext"]
        if token:
            options += ["-H", f"authorization: Bearer {token}"]
        if data is not None:
            options += ["-d", "@"]
        done = subprocess.run(
            [GRPCURL, *options, stack.grpc_target, *arguments],
            input="".join(map(json.dumps, messages)) if data is not None else None,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout + done.stderr

    return run


def messages_of(printed: str) -> list[dict]:
    decoder, messages = json.JSONDecoder(), []
    while printed.strip():
        message, end = decoder.raw_decode(printed.lstrip())
        messages.append(message)
        printed = printed.lstrip()[end:]
    return messages


def image() -> dict[str, str]:
    return {"bytes": base64.b64encode(star_png()).decode()}


def test_list_shows_every_service(grpcurl):
    listed = grpcurl("list").split()
    assert {service.full_name for service in services().values()} <= set(listed)
    assert {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= set(listed)


@pytest.mark.parametrize("service", services().values(), ids=lambda service: service.name)
def test_describe_shows_every_rpc_and_message(grpcurl, service):
    described = grpcurl("describe", service.full_name)
    for method in service.methods:
        assert f"rpc {method.name} (" in described
        assert "message" in grpcurl("describe", method.input_type.full_name)


def test_infer(grpcurl):
    answer = json.loads(grpcurl("camserve.v1.InferenceService/Infer", data={"model": "shapes", "image": image()}))
    assert answer["classes"][0]["id"] == "star"


def test_infer_upload(grpcurl):
    data, half = star_png(), len(star_png()) // 2
    parts = [base64.b64encode(part).decode() for part in (data[:half], data[half:])]
    first = {"model": "shapes", "size_bytes": len(data), "body": {"content_type": "image/png", "data": parts[0]}}
    answer = json.loads(grpcurl("camserve.v1.InferenceService/InferUpload", data=[first, {"body": {"data": parts[1]}}]))
    assert answer["classes"][0]["id"] == "star"


def test_infer_batch(grpcurl):
    inputs = [{"id": "a", "image": image()}, {"id": "b", "image": image()}]
    printed = grpcurl("camserve.v1.InferenceService/InferBatch", data={"model": "shapes", "inputs": inputs})
    assert [event["event"] for event in messages_of(printed)] == ["item", "item", "done"]


def test_a_job(grpcurl):
    inputs = [{"id": "a", "image": image()}]
    request = {"model": "shapes", "inputs": inputs, "metadata": {"order": 7}}
    name = {"job_id": json.loads(grpcurl("camserve.v1.JobService/CreateJob", data=request))["job_id"]}
    assert messages_of(grpcurl("camserve.v1.JobService/WatchJob", data=name))[-1]["event"] == "done"
    job = json.loads(grpcurl("camserve.v1.JobService/GetJob", data=name))
    assert (job["status"], job["metadata"]) == ("succeeded", {"order": 7})
    listed = json.loads(grpcurl("camserve.v1.JobService/ListJobs", data={"status": "succeeded"}))
    assert name["job_id"] in {job["job_id"] for job in listed["jobs"]}
    results = json.loads(grpcurl("camserve.v1.JobService/ListJobResults", data=name))
    assert results["items"][0]["result"]["classes"][0]["id"] == "star"
    assert "job.already_completed" in grpcurl("camserve.v1.JobService/CancelJob", data=name)


def test_a_webhook(grpcurl):
    request = {"url": "https://hooks.example/", "events": ["job.failed"]}
    made = json.loads(grpcurl("camserve.v1.WebhookService/CreateWebhook", data=request))
    name = {"webhook_id": made["webhook_id"]}
    rotated = json.loads(grpcurl("camserve.v1.WebhookService/RotateWebhookSecret", data=name))
    assert rotated["secret"] != made["secret"]
    assert json.loads(grpcurl("camserve.v1.WebhookService/GetWebhook", data=name))["url"] == request["url"]
    assert "webhook_id" in grpcurl("camserve.v1.WebhookService/ListWebhooks")
    assert "whsec_" in grpcurl("camserve.v1.WebhookService/GetCallbackSecret")
    event_id = json.loads(grpcurl("camserve.v1.WebhookService/TestWebhook", data=name))["event_id"]
    again = json.loads(grpcurl("camserve.v1.WebhookService/Redeliver", data=name | {"event_id": event_id}))
    assert again["status"] == "pending"
    assert event_id in grpcurl("camserve.v1.WebhookService/ListDeliveries", data=name)
    assert json.loads(grpcurl("camserve.v1.WebhookService/DeleteWebhook", data=name)) == {}


def test_a_resumable_upload(grpcurl):
    data, half = star_png(), len(star_png()) // 2
    parts = [base64.b64encode(part).decode() for part in (data[:half], data[half:])]
    assert json.loads(grpcurl("camserve.v1.UploadService/GetUploadProtocol", data={})) == {}
    begun = json.loads(grpcurl("camserve.v1.UploadService/StartUpload", data={"size_bytes": len(data)}))
    name = {"storage_id": begun["storage_id"]}
    grpcurl("camserve.v1.UploadService/AppendUpload", data=name | {"offset": 0, "body": {"data": parts[0]}})
    assert json.loads(grpcurl("camserve.v1.UploadService/GetUploadProgress", data=name))["offset"] == str(half)
    rest = name | {"offset": half, "body": {"data": parts[1]}}
    done = json.loads(grpcurl("camserve.v1.UploadService/AppendUpload", data=rest))
    assert done["upload"]["media_type"] == "image/png"


def test_models(grpcurl):
    listed = json.loads(grpcurl("camserve.v1.ModelService/ListModels"))
    assert "shapes" in {model["model"] for model in listed["models"]}
    model = json.loads(grpcurl("camserve.v1.ModelService/GetModel", data={"model": "shapes", "view": "full"}))
    assert len(model["versions"][0]["labels"]) == 10
    asked = {"model": "relabelled", "from": "2026-01", "to": "2026-02"}
    mapping = json.loads(grpcurl("camserve.v1.ModelService/GetLabelMapping", data=asked))
    assert mapping["classes"][4]["changes"] == ["moved", "renamed"]


def test_health_and_keys(grpcurl):
    assert json.loads(grpcurl("camserve.v1.HealthService/GetHealth", token=None))["version"]
    assert json.loads(grpcurl("camserve.v1.AuthService/GetJwks", token=None))["keys"]
    assert json.loads(grpcurl("grpc.health.v1.Health/Check", token=None)) == {"status": "SERVING"}
    listed = json.loads(grpcurl("grpc.health.v1.Health/List", token=None))
    assert listed["statuses"]["camserve.v1.UploadService"] == {"status": "SERVING"}


def test_the_reference(grpcurl):
    body = json.loads(grpcurl("camserve.v1.ReferenceService/GetOpenApi", token=None))
    assert json.loads(base64.b64decode(body["data"]))["openapi"] == "3.1.0"
    body = json.loads(grpcurl("camserve.v1.ReferenceService/GetReferencePage", token=None))
    assert base64.b64decode(body["data"]).startswith(b"<!doctype html>")


def test_the_playground(grpcurl):
    body = json.loads(grpcurl("camserve.v1.PlaygroundService/GetPlayground", token=None))
    assert base64.b64decode(body["data"]).startswith(b"<!doctype html>")
    body = json.loads(grpcurl("camserve.v1.PlaygroundService/GetPlaygroundFile", data={"file": "main.js"}, token=None))
    assert body["content_type"] == "text/javascript; charset=utf-8"


def test_issue_token(grpcurl, stack):
    made = dict(line.split("=", 1) for line in stack.camserve("client", "create", "--tenant", "acme").stdout.split())
    request = {"grant_type": "client_credentials", **made}
    issued = json.loads(grpcurl("camserve.v1.AuthService/IssueToken", data=request, token=None))
    assert "classes" in grpcurl(
        "camserve.v1.InferenceService/Infer", data={"model": "shapes", "image": image()}, token=issued["access_token"]
    )


def test_download(grpcurl):
    asked = {"model": "shapes", "image": image(), "grad_cam": {"enabled": True}}
    url = urlsplit(json.loads(grpcurl("camserve.v1.InferenceService/Infer", data=asked))["heatmap"]["url"])
    request = {"object_id": url.path.rpartition("/")[2], "token": parse_qs(url.query)["token"][0]}
    body = json.loads(grpcurl("camserve.v1.ObjectService/Download", data=request, token=None))
    assert base64.b64decode(body["data"]).startswith(b"\x89PNG")


def test_an_error_shows_its_details(grpcurl):
    printed = grpcurl("camserve.v1.ModelService/GetModel", data={"model": "nobody"})
    assert "Code: NotFound" in printed
    assert "model.not_found" in printed


def test_an_upload(grpcurl):
    data = star_png()
    body = {"content_type": "image/png", "data": base64.b64encode(data).decode()}
    made = json.loads(grpcurl("camserve.v1.UploadService/UploadImage", data={"size_bytes": len(data), "body": body}))
    name = {"storage_id": made["storage_id"]}
    assert json.loads(grpcurl("camserve.v1.UploadService/GetUpload", data=name)) == made
    used = grpcurl("camserve.v1.InferenceService/Infer", data={"model": "shapes", "image": name})
    assert json.loads(used)["classes"][0]["id"] == "star"
    assert json.loads(grpcurl("camserve.v1.UploadService/DeleteUpload", data=name)) == {}
    asked = {"media_type": "image/png", "size_bytes": len(data)}
    link = json.loads(grpcurl("camserve.v1.UploadService/PresignUpload", data=asked))
    url = urlsplit(link["upload_url"])
    first = {"object_id": url.path.rpartition("/")[2], "token": parse_qs(url.query)["token"][0], "body": body}
    stored = json.loads(grpcurl("camserve.v1.ObjectService/PutObject", data=first, token=None))
    assert stored["storage_id"] == link["storage_id"]
