"""The service with its objects in a bucket: all of them go there, and links lead through the edge or past it."""

from __future__ import annotations

import hashlib
from uuid import uuid4

import httpx
import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_jobs import create, entry, finished, picture
from tests.e2e.test_resumable import patch, start
from tests.e2e.test_uploads import error_code, infer, md5_of, presign, put, upload
from tests.images import encoded, opened, star_png
from tests.s3_server import s3_server

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module", params=["edge", "direct"])
def running(request, bucket, tmp_path_factory):
    direct = {"s3_public_url": bucket.url} if request.param == "direct" else {}
    stack = start_stack(tmp_path_factory.mktemp("stack"), **bucket.environment(request.param), **direct)
    yield stack, request.param
    stop_stack(stack)


@pytest.fixture
def api(running):
    stack, _ = running
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant=f"s3-{uuid4()}"), timeout=60) as client:
        yield client


@pytest.fixture
def origin(running, bucket):
    """Where links lead."""
    stack, way = running
    return stack.edge_url if way == "edge" else bucket.url


def test_an_upload_is_stored_and_used(api, running, bucket):
    stack, way = running
    made = upload(api).json()
    assert any(key.startswith(way) for key in bucket.keys(way))
    assert not list((stack.data_dir / "objects").rglob("obj_*"))
    assert infer(api, made["storage_id"]).json()["classes"][0]["id"] == "star"
    assert api.delete(f"/v1/uploads/{made['storage_id']}").status_code == 204
    assert error_code(infer(api, made["storage_id"])) == (404, "upload.not_found")


def test_a_heatmap_is_linked(api, origin):
    storage_id = upload(api).json()["storage_id"]
    heatmap = infer(api, storage_id, grad_cam={"enabled": True}).json()["heatmap"]
    assert heatmap["url"].startswith(origin)
    answer = httpx.get(heatmap["url"])
    assert answer.headers["content-type"] == "image/png"
    assert opened(answer.content).size == (heatmap["width"], heatmap["height"])
    assert httpx.get(heatmap["url"], headers={"range": "bytes=1-3"}).content == b"PNG"


def test_a_job_keeps_its_inputs_and_heatmaps_there(api, origin):
    inputs = [entry(f"i{n}", picture(), grad_cam={"enabled": True}) for n in range(8)]
    job_id = create(api, inputs).json()["job_id"]
    assert finished(api, job_id)["result_summary"] == {"items": 8, "succeeded": 8, "failed": 0}
    items = api.get(f"/v1/jobs/{job_id}/results").json()["items"]
    for item in items:
        assert item["result"]["heatmap"]["url"].startswith(origin)
        assert httpx.get(item["result"]["heatmap"]["url"]).status_code == 200


def test_a_large_upload_and_one_in_pieces_arrive_whole(api):
    data = encoded(3000, 3000, "PNG")
    answer = upload(api, data)
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()
    url = start(api, data).headers["location"]
    half = len(data) // 2
    assert patch(api, url, data[:half], 0).status_code == 204
    assert patch(api, url, data[half:], half).status_code == 204
    assert api.get(url).json()["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_presigned_upload_takes_one_image(api, origin):
    link = presign(api, content_md5=md5_of(star_png())).json()
    assert link["upload_url"].startswith(origin)
    assert error_code(api.get(f"/v1/uploads/{link['storage_id']}")) == (404, "upload.not_found")
    assert put(link, star_png()[::-1]).status_code in (400, 403)
    assert put(link).is_success
    assert api.get(f"/v1/uploads/{link['storage_id']}").json()["sha256"] == hashlib.sha256(star_png()).hexdigest()
    assert infer(api, link["storage_id"]).json()["classes"][0]["id"] == "star"
    assert put(link).status_code in (409, 412)


def test_a_presigned_upload_that_is_no_image_is_refused_and_the_link_takes_another(api, running):
    junk = b"\x89PNG\r\n\x1a\n" + bytes(len(star_png()) - 8)
    link = presign(api, junk).json()
    sent = put(link, junk)
    if running[1] == "direct":
        assert sent.is_success
        sent = infer(api, link["storage_id"])
    assert error_code(sent) == (422, "image.decoding_failed")
    assert error_code(infer(api, link["storage_id"])) == (404, "upload.not_found")
    assert put(link).is_success
    assert infer(api, link["storage_id"]).json()["classes"][0]["id"] == "star"


def test_a_presigned_link_under_a_key_leads_to_the_same_place(api):
    key = {"idempotency-key": str(uuid4())}
    body = {"media_type": "image/png", "size_bytes": str(len(star_png()))}
    first, again = (api.post("/v1/uploads:presign", json=body, headers=key).json() for _ in range(2))
    assert first["storage_id"] == again["storage_id"]
    assert put(again).is_success
    assert put(first).status_code in (409, 412)
    assert infer(api, first["storage_id"]).json()["classes"][0]["id"] == "star"


def test_a_deleted_presigned_upload_leaves_no_image_and_its_link_takes_none(api, running, bucket):
    kept = sizes(bucket, running[1])
    used, unused = presign(api).json(), presign(api).json()
    assert put(used).is_success
    assert infer(api, used["storage_id"]).status_code == 200
    for link in (used, unused):
        if link is used or running[1] == "direct":
            assert api.delete(f"/v1/uploads/{link['storage_id']}").status_code == 204
        assert error_code(infer(api, link["storage_id"])) == (404, "upload.not_found")
    assert sum(sizes(bucket, running[1])) == sum(kept)
    if running[1] == "direct":
        assert (put(used).status_code, put(unused).status_code) == (412, 412)
    else:
        assert error_code(put(used)) == (409, "resource.version_conflict")


def sizes(bucket, prefix):
    """Returns the bytes of every object."""
    listed = bucket.request("GET", **{"list-type": "2", "prefix": prefix}).text
    return [int(part.partition("</Size>")[0]) for part in listed.split("<Size>")[1:]]
