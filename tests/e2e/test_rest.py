"""The contract over REST, through the real Envoy, as a client would use it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from tests.images import encoded, opened, star_png


@pytest.fixture
def api(stack):
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=30) as client:
        yield client


def image(data=None):
    return {"bytes": base64.b64encode(star_png() if data is None else data).decode()}


def infer(api, **changes):
    return api.post("/v1/infer", json={"model": "shapes", "image": image()} | changes)


def test_json_answers_as_the_contract_says(api):
    answer = infer(api, grad_cam={"enabled": True}, classify={"top_k": 2})
    assert answer.status_code == 200
    body = answer.json()
    assert body["request_id"] == answer.headers["request-id"]
    assert (body["model"], body["model_version"]) == ("shapes", "2")
    assert set(body["timings_ms"]) == {"queue", "inference", "total", "decode", "cam", "render"}
    assert all(isinstance(value, int) for value in body["timings_ms"].values())
    assert body["image"] | {"sha256": ""} == {"width": 160, "height": 160, "media_type": "image/png", "sha256": ""}
    assert [set(entry) for entry in body["classes"]] == [{"id", "label", "prob"}] * 2
    heatmap = body["heatmap"]
    assert (heatmap["type"], heatmap["format"], heatmap["overlay"], heatmap["degenerate"]) == (
        "url",
        "png",
        False,
        False,
    )
    assert "data_b64" not in heatmap
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", heatmap["expires_at"])


def test_without_a_heatmap_the_member_is_absent(api):
    assert "heatmap" not in infer(api).json()


def test_an_inline_heatmap_is_base64(api):
    heatmap = infer(api, grad_cam={"enabled": True}, response={"heatmap": "inline"}).json()["heatmap"]
    assert heatmap["type"] == "png"
    assert "url" not in heatmap
    assert opened(base64.b64decode(heatmap["data_b64"])).size == (160, 160)


@pytest.mark.parametrize("resolution", ["input", {"width": 90, "height": 60}])
def test_both_spellings_of_resolution_work(api, resolution):
    heatmap = infer(api, grad_cam={"enabled": True, "resolution": resolution}).json()["heatmap"]
    expected = (160, 160) if resolution == "input" else (90, 60)
    assert (heatmap["width"], heatmap["height"]) == expected


def test_unknown_json_fields_are_ignored(api):
    assert infer(api, colour="blue", grad_cam={"enabled": False, "sparkle": 3}).status_code == 200


def test_a_multipart_form_with_fields(api):
    answer = api.post(
        "/v1/infer",
        files={"image": ("star.png", star_png(), "image/png")},
        data={
            "model": "shapes",
            "classify.top_k": "3",
            "grad_cam.enabled": "true",
            "grad_cam.resolution": "input",
            "grad_cam.alpha": "0.25",
        },
    )
    assert answer.status_code == 200
    assert len(answer.json()["classes"]) == 3
    assert answer.json()["heatmap"]["width"] == 160


@pytest.mark.parametrize("first", ["image", "request"])
def test_a_multipart_form_with_json_in_any_order(api, first):
    parts = {
        "image": ("image", ("star.png", star_png(), "image/png")),
        "request": (
            "request",
            (None, json.dumps({"model": "shapes", "classify": {"top_k": 1}}), "application/json"),
        ),
    }
    order = [parts.pop(first), *parts.values()]
    answer = api.post("/v1/infer", files=order)
    assert answer.status_code == 200
    assert len(answer.json()["classes"]) == 1


def multipart(api, *, files=None, data=None, **options):
    files = {"image": ("star.png", star_png(), "image/png")} if files is None else files
    return api.post("/v1/infer", files=files, data=data or {}, **options)


@pytest.mark.parametrize(
    ("files", "data", "status", "code"),
    [
        (None, {}, 400, "param.invalid"),
        (None, {"model": "shapes", "classify.top_k": "many"}, 400, "param.invalid"),
        (None, {"model": "shapes", "classify.top_k": "0"}, 400, "param.out_of_range"),
        (None, {"model": "shapes", "clasify.top_k": "1"}, 400, "param.invalid"),
        (None, {"model": "shapes", "classify.top_k": "1_0"}, 400, "param.invalid"),
        (None, {"model": "shapes", "classify.top_k": "\u0662"}, 400, "param.invalid"),
        (None, {"model": "shapes", "grad_cam.enabled": "yes"}, 400, "param.invalid"),
        (None, {"model": "shapes", "request": "{}"}, 400, "param.invalid"),
        (None, {"request": "{"}, 400, "json.malformed"),
        (None, {"request": '{"model": "shapes", "image": {}}'}, 400, "image.source_required"),
        ({"picture": ("star.png", b"x", "image/png")}, {"model": "shapes"}, 400, None),
        ([("image", ("a.png", b"x", "image/png"))] * 2, {"model": "shapes"}, 400, "image.source_required"),
        ({"image": ("star.jpg", star_png(), "image/png")}, {"model": "shapes"}, 415, "media.mismatch"),
        ({"image": ("star.png", star_png(), "image/jpeg")}, {"model": "shapes"}, 415, "media.mismatch"),
        ({"image": ("star.gif", encoded(fmt="GIF"), "image/gif")}, {"model": "shapes"}, 415, "media.unsupported"),
    ],
)
def test_forms_that_cannot_be_answered_are_refused(api, files, data, status, code):
    answer = multipart(api, files=files, data=data)
    error = answer.json()["error"]
    assert (answer.status_code, error["status"]) == (status, status)
    if code:
        assert error["code"] == code


def test_a_form_without_its_closing_boundary_is_refused(api):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nshapes\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="s.png"\r\n\r\n' + star_png()
    )
    answer = api.post("/v1/infer", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "param.invalid")


@pytest.mark.parametrize("md5", ["\u00e9", "c2hvcnQ=", "{}", "ndTkYSaMgDT1yFZOFVxnpZ=="])
def test_a_declared_md5_that_is_none_is_refused(api, md5):
    declared = {"media_type": "image/png", "size_bytes": 1, "content_md5": md5}
    answer = api.post("/v1/uploads:presign", json=declared)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "image.base64_invalid")
    answer = api.post("/v1/uploads:resumable", params={"size_bytes": 1, "content_md5": md5})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "image.base64_invalid")


@pytest.mark.parametrize("of", ["body", "file"])
def test_content_md5_of_a_form_may_mean_the_body_or_the_file(api, of):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nshapes\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="s.png"\r\n\r\n' + star_png() + b"\r\n--b--\r\n"
    )
    digest = base64.b64encode(hashlib.md5(body if of == "body" else star_png()).digest()).decode()
    headers = {"content-type": "multipart/form-data; boundary=b", "content-md5": digest}
    assert api.post("/v1/infer", content=body, headers=headers).status_code == 200
    headers["content-md5"] = base64.b64encode(bytes(16)).decode()
    assert api.post("/v1/infer", content=body, headers=headers).json()["error"]["code"] == "image.md5_mismatch"


def test_a_raw_body_with_query_parameters(api):
    answer = api.post(
        "/v1/infer?model=shapes&classify.top_k=2&grad_cam.enabled=true&grad_cam.colormap=viridis",
        content=star_png(),
        headers={"content-type": "image/png"},
    )
    assert answer.status_code == 200
    assert len(answer.json()["classes"]) == 2
    assert answer.json()["heatmap"]["colormap"] == "viridis"


@pytest.mark.parametrize(
    "query",
    [
        "grad_cam.resolution.width=90&grad_cam.resolution.height=60",
        "grad_cam.resolution=" + quote('{"width": 90, "height": 60}'),
        "grad_cam.resolution=input",
    ],
)
def test_resolution_may_come_as_a_query_parameter(api, query):
    answer = api.post(
        f"/v1/infer?model=shapes&grad_cam.enabled=true&{query}",
        content=star_png(),
        headers={"content-type": "image/png"},
    )
    heatmap = answer.json()["heatmap"]
    assert (heatmap["width"], heatmap["height"]) == ((160, 160) if query.endswith("=input") else (90, 60))


def test_a_raw_body_with_a_json_parameter(api):
    wanted = quote(json.dumps({"model": "shapes", "classify": {"top_k": 1}}))
    answer = api.post(f"/v1/infer?request={wanted}", content=star_png(), headers={"content-type": "image/png"})
    assert len(answer.json()["classes"]) == 1


def test_a_raw_body_of_unknown_length_needs_an_md5(api):
    def chunks():
        yield star_png()

    headers = {"content-type": "image/png"}
    answer = api.post("/v1/infer?model=shapes", content=chunks(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (411, "upload.length_required")
    headers["content-md5"] = base64.b64encode(hashlib.md5(star_png()).digest()).decode()
    assert api.post("/v1/infer?model=shapes", content=chunks(), headers=headers).status_code == 200


def test_a_batch_is_ndjson_that_ends_with_done(api):
    inputs = [{"id": "a", "image": image()}, {"id": "b", "image": image(b"nothing")}]
    answer = api.post("/v1/infer:batch", json={"model": "shapes", "inputs": inputs})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert {line["item"]["id"]: line["item"]["status"] for line in lines[:-1]} == {"a": "succeeded", "b": "failed"}
    assert lines[-1] == {"event": "done", "summary": {"items": 2, "succeeded": 1, "failed": 1}}


def test_a_batch_is_server_sent_events_on_request(api):
    body = {"model": "shapes", "inputs": [{"id": "a", "image": image()}]}
    answer = api.post("/v1/infer:batch", json=body, headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"] == "text/event-stream"
    events = [json.loads(block.removeprefix("data: ")) for block in answer.text.strip().split("\n\n")]
    assert [event["event"] for event in events] == ["item", "done"]


def test_models_are_listed_and_described(api):
    listing = api.get("/v1/models").json()
    assert [model["model"] for model in listing["models"]] == ["broken", "relabelled", "shapes"]
    assert listing["page"] == {"size": 3}
    version = api.get("/v1/models/shapes?view=full").json()["versions"][0]
    assert version["state"] == "ready"
    assert version["golden"] == "passed"
    assert version["labels"][0] == {"id": "circle", "label": "circle"}
    broken = api.get("/v1/models/broken").json()["versions"][0]
    assert (broken["state"], broken["aliases"], broken["layers"]) == ("unavailable", ["stable"], [])
    assert broken["reason"]


def test_health_and_keys_need_no_token(stack):
    assert httpx.get(f"{stack.edge_url}/v1/health").json()["status"] == "degraded"
    assert httpx.get(f"{stack.edge_url}/.well-known/jwks.json").json()["keys"][0]["kty"] == "EC"


@pytest.fixture
def link(api):
    return infer(api, grad_cam={"enabled": True}).json()["heatmap"]["url"]


def test_a_link_hands_out_the_heatmap_with_safe_headers(stack, link):
    answer = httpx.get(link)
    assert answer.status_code == 200
    assert opened(answer.content).size == (160, 160)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith('inline; filename="obj_')
    assert answer.headers["content-length"] == str(len(answer.content))
    assert link.startswith(stack.edge_url)


@pytest.mark.parametrize(
    ("query", "details"),
    [
        (
            "status=done",
            {
                "field": "status",
                "rule": "must be in list [queued, running, succeeded, failed, canceled, expired]",
            },
        ),
        (
            "limit=1000",
            {"field": "limit", "rule": "must be greater than or equal to 1 and less than or equal to 200"},
        ),
    ],
)
def test_who_breaks_a_rule_is_told_which(api, query, details):
    assert api.get(f"/v1/jobs?{query}").json()["error"]["details"] == details


def test_a_link_answers_ranges_and_head(link):
    whole = httpx.get(link).content
    part = httpx.get(link, headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, whole[4:8])
    assert part.headers["content-range"] == f"bytes 4-7/{len(whole)}"
    past = httpx.get(link, headers={"range": f"bytes={len(whole)}-"})
    assert past.json()["error"]["code"] == "param.out_of_range"
    head = httpx.head(link)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(whole)))


def test_a_link_that_was_altered_is_refused(link):
    answer = httpx.get(link[:-2] + ("AA" if link[-2:] != "AA" else "BB"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "signature.invalid")
    assert httpx.get(link.partition("?")[0]).json()["error"]["code"] == "signature.invalid"


def test_a_token_may_be_fetched_with_client_credentials(stack):
    made = dict(line.split("=", 1) for line in stack.camserve("client", "create", "--tenant", "acme").stdout.split())
    url = f"{stack.edge_url}/oauth2/token"
    form = {"grant_type": "client_credentials"}
    answer = httpx.post(url, data=form, auth=(made["client_id"], made["client_secret"]))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()["access_token"]
    assert httpx.get(f"{stack.edge_url}/v1/models", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert httpx.post(url, data=form | made).status_code == 200
    refused = httpx.post(url, data=form, auth=(made["client_id"], "wrong"))
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    in_query = httpx.post(f"{url}?client_secret=x", data=form)
    assert (in_query.status_code, in_query.json()["error"]) == (400, "invalid_request")
    assert httpx.post(url, data={"grant_type": "password"}).json()["error"] == "unsupported_grant_type"


def test_metrics_count_calls(stack, api):
    api.get("/v1/models")
    text = "".join(httpx.get(url).text for url in stack.metrics_urls)
    assert 'camserve_calls_total{code="OK",method="camserve.v1.ModelService.ListModels"}' in text
    assert "camserve_stage_seconds_bucket" in text


def test_links_and_objects_outlive_the_rotation_of_their_keys(stack, link):
    before = httpx.get(link).content
    for ring in ("objects", "urls"):
        assert stack.camserve("keys", "rotate", ring).returncode == 0
    assert httpx.get(link).content == before


def test_options_in_the_query_and_in_the_form_are_refused(api):
    files = {"image": ("star.png", star_png(), "image/png")}
    answer = api.post("/v1/infer?classify.top_k=2", files=files, data={"model": "shapes"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "param.invalid")
    assert len(api.post("/v1/infer?model=shapes&classify.top_k=2", files=files).json()["classes"]) == 2


def test_text_that_is_not_utf8_in_a_path_is_a_bad_parameter(api):
    answer = api.get("/v1/models/%ff")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "param.invalid")


@pytest.mark.parametrize("size", [{"width": 50, "height": 40}, {"width": 1000, "height": 700}])
def test_the_values_of_a_heatmap_span_zero_to_one(api, size):
    answer = infer(api, grad_cam={"enabled": True, "format": "npy", "resolution": size}, response={"heatmap": "inline"})
    heatmap = answer.json()["heatmap"]
    data = httpx.get(heatmap["url"]).content if heatmap["type"] == "url" else base64.b64decode(heatmap["data_b64"])
    array = np.load(io.BytesIO(data), allow_pickle=False)
    assert array.shape == (size["height"], size["width"])
    assert (array.min(), array.max()) == pytest.approx((0, 1), abs=1e-5)
