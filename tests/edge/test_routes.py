"""Where a request goes, by path, verb, media type and query."""

from __future__ import annotations

import httpx
import pytest
from tests.edge.conftest import Edge
from tests.edge.wire import check_error

from camserve.v1 import inference_pb2, jobs_pb2, models_pb2, objects_pb2
from camserve_server.base.errors import Reason

OBJECT = "/v1/objects/obj_0123456789abcdefghij"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "path",
    [
        "/unknown",
        "/v1",
        "/v1/models/",
        "/v1/models/a/b",
        "/v1/infer:other",
        "/v1/objects/obj_short",
        "/v1/objects/OBJ_0123456789abcdefghij",
        "/v1/objects/obj_0123456789abcdefgh-j",
        "/v1/objects/obj_" + "a" * 41,
        "/camserve.v1.ModelService/ListModels",
    ],
)
def test_an_unknown_path_or_a_malformed_id_is_404(caller: httpx.Client, path: str) -> None:
    check_error(caller.get(path), Reason.ROUTE_NOT_FOUND)


@pytest.mark.parametrize(
    ("verb", "path", "allow"),
    [
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/v1/models/shapes", "GET"),
        ("GET", "/v1/infer", "POST"),
        ("PUT", "/v1/infer:batch", "POST"),
        ("OPTIONS", "/v1/models", "GET"),
        ("PATCH", OBJECT, "GET, HEAD, PUT"),
        ("GET", "/oauth2/token", "POST"),
        ("X-OF-NOBODY", OBJECT, "GET, HEAD, PUT"),
    ],
)
def test_another_verb_is_405_and_told_which_are_allowed(caller: httpx.Client, verb: str, path: str, allow: str) -> None:
    response = caller.request(verb, path)
    check_error(response, Reason.METHOD_NOT_ALLOWED)
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/infer", {"content-type": "text/plain"}),
        ("/v1/infer", {"content-type": "application/jsonx"}),
        ("/v1/infer", {"content-type": "image/"}),
        ("/v1/infer", {}),
        ("/v1/infer", {**JSON, "content-encoding": "gzip"}),
        ("/v1/infer:batch", {"content-type": "multipart/form-data; boundary=x"}),
        ("/oauth2/token", JSON),
    ],
)
def test_a_body_of_another_media_type_is_415(
    edge: Edge, caller: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    check_error(caller.post(path, content=b"{}", headers=headers), Reason.MEDIA_UNSUPPORTED)
    assert not edge.replica.received


@pytest.mark.parametrize(
    ("media_type", "rpc"),
    [
        ("application/json", "Infer"),
        ("Application/JSON; charset=utf-8", "Infer"),
        ("multipart/form-data; boundary=x", "InferUpload"),
        ("image/png", "InferUpload"),
        ("IMAGE/x-anything", "InferUpload"),
        ("application/octet-stream", "InferUpload"),
    ],
)
def test_the_media_type_chooses_between_the_methods_of_one_path(
    edge: Edge, caller: httpx.Client, media_type: str, rpc: str
) -> None:
    assert caller.post("/v1/infer", content=b"{}", headers={"content-type": media_type}).status_code == 200
    assert edge.replica.received[0].path == f"/camserve.v1.InferenceService/{rpc}"


@pytest.mark.parametrize(
    "query",
    [
        "object_id=obj_another0123456789",
        "objectId=obj_another0123456789",
        "token=t&object_id=x",
        "%6Fbject_id=x",
        "object%5Fid=x",
        "object%49d=x",
        "Object_Id=x",
        "object_id",
        "object_id.x=1",
    ],
)
def test_a_query_cannot_replace_a_variable_of_the_path(edge: Edge, stranger: httpx.Client, query: str) -> None:
    check_error(stranger.get(f"{OBJECT}?{query}"), Reason.PARAM_INVALID)
    assert not edge.replica.received


def test_the_path_names_the_object_and_the_query_its_token(edge: Edge, stranger: httpx.Client) -> None:
    edge.replica.answer = lambda call: iter([])
    stranger.get(f"{OBJECT}?token=a%2Bb")
    request = objects_pb2.DownloadRequest.FromString(edge.replica.received[0].messages[0])
    assert (request.object_id, request.token) == ("obj_0123456789abcdefghij", "a+b")


def test_an_encoded_name_is_decoded_once(edge: Edge, caller: httpx.Client) -> None:
    caller.get("/v1/models/a%20b%2520c")
    assert models_pb2.GetModelRequest.FromString(edge.replica.received[0].messages[0]).model == "a b%20c"


@pytest.mark.parametrize(
    ("verb", "path", "reason"),
    [
        ("GET", "/v1/models?unknown=1", Reason.PARAM_INVALID),
        ("POST", "/v1/infer?unknown=1", Reason.JSON_MALFORMED),
    ],
)
def test_an_unknown_parameter_is_refused(caller: httpx.Client, verb: str, path: str, reason: Reason) -> None:
    body = {"content": b"{}", "headers": JSON} if verb == "POST" else {}
    check_error(caller.request(verb, path, **body), reason)  # type: ignore[arg-type]


def test_an_upload_takes_its_options_from_the_query(edge: Edge, caller: httpx.Client) -> None:
    query = {
        "model": "shapes",
        "classify.top_k": "3",
        "grad_cam.enabled": "true",
        "gradCam.alpha": "0.25",
        "grad_cam.resolution": "input",
        "resize.longest_side": "64",
    }
    caller.post("/v1/infer", params=query, content=b"abc", headers={"content-type": "image/png"})
    first = inference_pb2.InferUploadRequest.FromString(edge.replica.received[0].messages[0])
    assert first.model == "shapes"
    assert first.classify.top_k == 3
    assert first.grad_cam.enabled
    assert first.grad_cam.alpha == 0.25
    assert first.grad_cam.resolution.string_value == "input"
    assert first.resize.longest_side == 64
    assert (first.body.content_type, first.body.data) == ("image/png", b"abc")


def test_an_upload_takes_its_options_as_json_in_one_parameter(edge: Edge, caller: httpx.Client) -> None:
    options = '{"model": "shapes", "grad_cam": {"resolution": {"width": 3}}}'
    caller.post("/v1/infer", params={"request": options}, content=b"abc", headers={"content-type": "image/png"})
    first = inference_pb2.InferUploadRequest.FromString(edge.replica.received[0].messages[0])
    assert first.request == options


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/json", "application/x-ndjson"),
        ("text/html", "application/x-ndjson"),
        ("text/event-stream", "text/event-stream"),
        ("text/html, Text/Event-Stream;q=0.9", "text/event-stream"),
    ],
)
def test_accept_chooses_how_a_batch_is_streamed(
    edge: Edge, caller: httpx.Client, accept: str | None, media_type: str
) -> None:
    events = inference_pb2.StreamEvent
    edge.replica.answer = lambda call: iter(
        [inference_pb2.BatchEvent(event=events.heartbeat), inference_pb2.BatchEvent(event=events.done)]
    )
    request = caller.build_request("POST", "/v1/infer:batch", content=b"{}", headers=JSON)
    del request.headers["accept"]
    if accept:
        request.headers["accept"] = accept
    response = caller.send(request)
    assert response.headers["content-type"] == media_type
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    start = "data: " if media_type == "text/event-stream" else ""
    assert [line for line in response.text.splitlines() if line] == [
        f'{start}{{"event":"heartbeat"}}',
        f'{start}{{"event":"done"}}',
    ]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("application/json", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("application/x-ndjson", "application/x-ndjson"),
    ],
)
def test_what_is_watched_comes_as_events(edge: Edge, caller: httpx.Client, accept: str | None, media_type: str) -> None:
    edge.replica.answer = lambda call: iter([jobs_pb2.JobEvent(event=inference_pb2.StreamEvent.done)])
    request = caller.build_request("GET", "/v1/jobs/job_0123456789abcdef/events")
    del request.headers["accept"]
    if accept:
        request.headers["accept"] = accept
    response = caller.send(request)
    assert response.headers["content-type"] == media_type
    start = "data: " if media_type == "text/event-stream" else ""
    assert response.text.strip() == f'{start}{{"event":"done"}}'
