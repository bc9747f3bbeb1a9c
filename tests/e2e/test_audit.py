"""The log says of every access who made it, what it did, and to which object, refused or not."""

from __future__ import annotations

import json
import time
from uuid import uuid4

import httpx
import pytest
from tests.e2e.test_jobs import entry
from tests.e2e.test_resumable import patch, start
from tests.e2e.test_uploads import presign, put, upload
from tests.images import star_png

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def tenant():
    return f"audit-{uuid4()}"


@pytest.fixture
def api(stack, tenant):
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant=tenant), timeout=60) as client:
        yield client


@pytest.fixture
def line(stack):
    def find(answer):
        """Returns the line about a call once it is written, which may be after its answer."""
        sought = answer.headers["request-id"]
        while True:
            for text in "".join(log.read_text() for log in stack.server_logs).splitlines():
                if sought in text and (found := json.loads(text))["event"] == "call":
                    return found
            time.sleep(0.02)

    return find


def test_what_uses_an_upload_names_it(api, tenant, line):
    storage_id = upload(api).json()["storage_id"]
    stored = {"image": {"storage_id": storage_id}}
    inferred = line(api.post("/v1/infer", json={"model": "shapes", **stored}))
    assert (inferred["tenant"], inferred["storage_id"], inferred["code"]) == (tenant, storage_id, "OK")
    inputs = {"model": "shapes", "inputs": [{"id": "a", **stored}, entry("b"), {"id": "c", **stored}]}
    for path in ("/v1/jobs", "/v1/infer:batch"):
        assert line(api.post(path, json=inputs))["storage_ids"] == [storage_id, storage_id]
    refused = line(api.post("/v1/infer", json={"model": "none", **stored}))
    assert (refused["storage_id"], refused["code"]) == (storage_id, "model.not_found")


def test_a_piece_that_is_refused_names_its_upload(api, tenant, line):
    url = start(api).headers["location"]
    refused = line(patch(api, url, star_png()[:9], 5))
    assert (refused["storage_id"], refused["code"]) == (url.rpartition("/")[2], "upload.offset_conflict")
    assert line(patch(api, url, star_png()[:9], 0))["storage_id"] == url.rpartition("/")[2]


def test_a_link_names_whose_it_is_and_what_it_leads_to(api, tenant, line):
    link = presign(api).json()
    object_id = link["upload_url"].partition("?")[0].rpartition("/")[2]
    for data, code in (
        (star_png()[:-1], "param.invalid"),
        (star_png(), "OK"),
        (star_png(), "resource.version_conflict"),
    ):
        seen = line(put(link, data))
        assert (seen["tenant"], seen["subject"], seen["object_id"], seen["code"]) == (tenant, None, object_id, code)
    heatmap = api.post(
        "/v1/infer",
        json={"model": "shapes", "image": {"storage_id": link["storage_id"]}, "grad_cam": {"enabled": True}},
    ).json()["heatmap"]["url"]
    seen = line(httpx.get(heatmap))
    assert (seen["tenant"], seen["object_id"]) == (tenant, heatmap.partition("?")[0].rpartition("/")[2])
    forged = line(httpx.get(heatmap.replace("token=", "token=x")))
    assert (forged["tenant"], forged["object_id"]) == (None, seen["object_id"])


def test_the_audit_log_has_every_call_in_an_unbroken_chain(stack, api, tenant, line):
    storage_id = upload(api).json()["storage_id"]
    refused = api.post("/v1/infer", json={"model": "none", "image": {"storage_id": storage_id}})
    logged = line(refused)
    sought = refused.headers["request-id"]
    # Replicas that share the folder have a file each.
    paths = (stack.data_dir / "logs").glob("audit-*.jsonl")
    (path,) = [path for path in paths if sought in path.read_text()]
    (found,) = [each for each in map(json.loads, path.read_text().splitlines()) if each["request_id"] == sought]
    assert found["tenant"] == tenant
    same = found.keys() - {"time", "previous"}
    assert {name: found[name] for name in same} == {name: logged[name] for name in same}
    verified = stack.camserve("audit", "verify", str(path))
    assert verified.returncode == 0, verified.stderr
    assert "whole" in verified.stdout
