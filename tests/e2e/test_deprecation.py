"""Methods that end: every answer says so, refusals and native ones too."""

from __future__ import annotations

import base64
import json
import subprocess

import grpc
import httpx
import pytest
from tests.conftest import camserve_program
from tests.images import star_png

from camserve.v1 import models_pb2, models_pb2_grpc

pytestmark = pytest.mark.timeout(180)
DATES = {"deprecated_at": "2027-01-01", "sunset_at": "2027-07-01", "link": "https://example.com/v2"}
TOLD = {
    "deprecation": "@1798761600",
    "sunset": "Thu, 01 Jul 2027 00:00:00 GMT",
    "link": '<https://example.com/v2>; rel="deprecation"',
}


def told(headers):
    return {name: headers[name] for name in TOLD if name in headers}


def test_every_answer_of_a_method_that_ends_says_so(make_stack):
    running = make_stack(deprecated_methods=json.dumps({"ModelService.GetModel": DATES}))
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=30) as api:
        assert told(api.get("/v1/models/shapes").headers) == TOLD
        missing = api.get("/v1/models/nobody")
        assert (missing.status_code, told(missing.headers)) == (404, TOLD)
        assert told(api.get("/v1/models").headers) == {}
    metadata = (("authorization", running.headers()["Authorization"]),)
    with grpc.insecure_channel(running.grpc_target) as channel:
        models = models_pb2_grpc.ModelServiceStub(channel)
        _, call = models.GetModel.with_call(models_pb2.GetModelRequest(model="shapes"), metadata=metadata, timeout=20)
        assert told(dict(call.initial_metadata())) == TOLD
        with pytest.raises(grpc.RpcError) as caught:
            models.GetModel(models_pb2.GetModelRequest(model="nobody"), metadata=metadata, timeout=20)
        assert told(dict(caught.value.trailing_metadata())) == TOLD


def test_an_answer_has_one_set_of_dates_that_of_what_ends_first(make_stack):
    running = make_stack(deprecated_methods=json.dumps({"InferenceService.Infer": DATES}))
    body = {"model": "shapes", "model_version": "1", "image": {"bytes": base64.b64encode(star_png()).decode()}}
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=30) as api:
        for sunset, expected in (
            ("2027-08-01", TOLD),
            ("2027-03-01", {"deprecation": "@1801526400", "sunset": "Mon, 01 Mar 2027 00:00:00 GMT"}),
        ):
            dates = ["--on", "2027-02-02", "--sunset", sunset]
            assert running.camserve("models", "deprecate", "shapes", "1", *dates).returncode == 0
            assert told(api.post("/v1/infer", json=body).headers) == expected


def test_a_method_that_there_is_not_stops_the_start(stack):
    wrong = json.dumps({"ModelService.GetMoodel": DATES})
    environment = stack.environment | {
        "CAMSERVE_DEPRECATED_METHODS": wrong,
        "CAMSERVE_REDIS_URL": "redis://127.0.0.1:1",
    }
    done = subprocess.run(
        [camserve_program(), "serve"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "ModelService.GetMoodel" in done.stderr
