"""A gRPC client of the first release calls everything that it knows, and understands the answers."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest
from tests.compat.exchanges import HERE, TENANT
from tests.compat.release import METHODS, call, refusal, unknown_values

PACKAGE = "camserve.v1"
CIRCLE = (HERE / "circle.png").read_bytes()
IMAGE = {"bytes": base64.b64encode(CIRCLE).decode()}
INFER = {"model": "shapes", "image": IMAGE, "classify": {"topK": 3}, "gradCam": {"enabled": True}}


@dataclass
class Caller:
    """A channel to the gRPC port, a token of every scope of the release, and what was called with it."""

    channel: grpc.aio.Channel
    token: str
    client: dict[str, str]

    async def __call__(self, method: str, *requests: dict[str, Any]) -> list[Any]:
        metadata = (("authorization", f"Bearer {self.token}"),)
        answers = await call(self.channel, f"{PACKAGE}.{method}", *requests, metadata=metadata)
        assert [each for answer in answers for each in unknown_values(answer)] == []
        return answers


@pytest.fixture
async def caller(stack) -> AsyncIterator[Caller]:
    made = stack.camserve("client", "create", "--tenant", TENANT, "--scope", "inference.read").stdout
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        token = stack.token(tenant=TENANT, scopes=("inference.read", "inference.write"))
        yield Caller(channel, token, dict(line.split("=", 1) for line in made.split()))


async def issue_token(caller: Caller) -> None:
    form = {"grantType": "client_credentials", "clientId": caller.client["client_id"]}
    (answer,) = await caller("AuthService.IssueToken", form | {"clientSecret": caller.client["client_secret"]})
    assert (answer.token_type, answer.scope) == ("Bearer", "inference.read")
    assert answer.expires_in > 0
    caller.token = answer.access_token
    assert (await caller("ModelService.ListModels", {}))[0].models


async def get_jwks(caller: Caller) -> None:
    (answer,) = await caller("AuthService.GetJwks", {})
    assert answer.keys[0].kid


async def get_health(caller: Caller) -> None:
    (answer,) = await caller("HealthService.GetHealth", {})
    assert answer.status
    assert {"engine", "imaging", "store"} <= {component.name for component in answer.components}


async def list_models(caller: Caller) -> None:
    (answer,) = await caller("ModelService.ListModels", {})
    assert "shapes" in [model.model for model in answer.models]
    assert answer.page.size == len(answer.models)


async def get_model(caller: Caller) -> None:
    (answer,) = await caller("ModelService.GetModel", {"model": "shapes", "view": "full"})
    stable = next(version for version in answer.versions if "stable" in version.aliases)
    assert stable.classes == len(stable.labels) >= 10
    assert stable.default_layer in stable.layers
    assert len(stable.content_sha256) == 64


async def infer(caller: Caller) -> None:
    (answer,) = await caller("InferenceService.Infer", INFER)
    check_answer(answer)
    assert (answer.image.width, answer.image.media_type) == (128, "image/png")
    assert answer.heatmap.type == "url"
    (answer,) = await caller("InferenceService.Infer", INFER | {"response": {"heatmap": "inline"}})
    assert answer.heatmap.data_b64.startswith(b"\x89PNG")


async def infer_upload(caller: Caller) -> None:
    half = len(CIRCLE) // 2
    first = {"model": "shapes", "classify": {"topK": 3}, "gradCam": {"enabled": True}, "sizeBytes": str(len(CIRCLE))}
    parts = [{"data": base64.b64encode(part).decode()} for part in (CIRCLE[:half], CIRCLE[half:])]
    parts[0]["contentType"] = "image/png"
    (answer,) = await caller("InferenceService.InferUpload", first | {"body": parts[0]}, {"body": parts[1]})
    check_answer(answer)


def check_answer(answer: Any) -> None:
    assert answer.model == "shapes"
    assert answer.model_version
    assert answer.labels_version
    assert answer.calibration_version
    assert answer.classes[0].id == "circle"
    assert len(answer.classes) == 3
    assert answer.classes[0].prob > 0.9
    assert (answer.heatmap.width, answer.heatmap.target, answer.heatmap.normalization) == (128, "circle", "0-1")
    assert answer.request_id


async def infer_batch(caller: Caller) -> None:
    inputs = [{"id": "good", "image": IMAGE}, {"id": "bad", "image": {"bytes": "bm8gaW1hZ2U="}}]
    events = await caller("InferenceService.InferBatch", {"model": "shapes", "inputs": inputs})
    items = {event.item.id: event.item for event in events if event.HasField("item")}
    assert items["good"].result.classes[0].id == "circle"
    assert items["bad"].error.code == "image.invalid_format"
    assert events[-1].summary.succeeded == events[-1].summary.failed == 1


async def download(caller: Caller) -> None:
    (answer,) = await caller("InferenceService.Infer", INFER)
    link = urlsplit(answer.heatmap.url)
    request = {"objectId": link.path.rpartition("/")[2], "token": parse_qs(link.query)["token"][0]}
    bodies = await caller("ObjectService.Download", request)
    assert bodies[0].content_type == "image/png"
    assert b"".join(body.data for body in bodies).startswith(b"\x89PNG")


CALLS: dict[str, Callable[[Caller], Any]] = {
    "AuthService.IssueToken": issue_token,
    "AuthService.GetJwks": get_jwks,
    "HealthService.GetHealth": get_health,
    "InferenceService.Infer": infer,
    "InferenceService.InferUpload": infer_upload,
    "InferenceService.InferBatch": infer_batch,
    "ModelService.ListModels": list_models,
    "ModelService.GetModel": get_model,
    "ObjectService.Download": download,
}


def test_every_method_of_the_release_is_called():
    assert {f"{PACKAGE}.{name}" for name in CALLS} == set(METHODS)


@pytest.mark.parametrize("name", CALLS)
async def test_a_client_of_the_first_release_understands_the_answer(caller, name):
    await CALLS[name](caller)


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"model": "none"}, grpc.StatusCode.NOT_FOUND, "model.not_found"),
        ({"modelVersion": "none"}, grpc.StatusCode.NOT_FOUND, "model.version_not_found"),
        ({"classify": {"topK": 2000}}, grpc.StatusCode.INVALID_ARGUMENT, "param.out_of_range"),
        ({"image": {"bytes": "bm8gaW1hZ2U="}}, grpc.StatusCode.INVALID_ARGUMENT, "image.invalid_format"),
    ],
)
async def test_a_client_of_the_first_release_understands_refusals(caller, change, code, reason):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller("InferenceService.Infer", INFER | change)
    error, info_reason = refusal(caught.value)
    assert caught.value.code() is code
    assert error.code == info_reason == reason
    assert error.type
    assert error.message
    assert error.request_id


def test_its_messages_know_nothing_of_later_fields():
    assert "job_id" not in METHODS[f"{PACKAGE}.InferenceService.Infer"].output_type.fields_by_name


def test_recorded_requests_send_what_the_release_knows():
    fields = METHODS[f"{PACKAGE}.InferenceService.Infer"].input_type.fields_by_name
    exchanges = json.loads((HERE / "first_release.json").read_text())["exchanges"]
    bodies = [
        each["request"]["json"]
        for each in exchanges.values()
        if each["request"]["path"] == "/v1/infer" and "json" in each["request"]
    ]
    assert {key for body in bodies for key in body} - {"colour"} <= set(fields)
