"""Jobs over REST, and what they survive."""

from __future__ import annotations

import base64
import json
import os
import signal
import time

import httpx
import psutil
import pytest
from benchmarks.processes import by_role
from tests.conftest import Stack
from tests.images import encoded, star_png

pytestmark = pytest.mark.timeout(180)
FINISH_WITHIN_S = 90.0


@pytest.fixture
def api(stack):
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as client:
        yield client


def entry(name, data=None, **options):
    return {"id": name, "image": {"bytes": base64.b64encode(star_png() if data is None else data).decode()}} | options


def picture():
    """Large enough to take a moment, small enough that a hundred fit in one body."""
    return encoded(600, 400, "JPEG", quality=60)


def create(api, inputs, **changes):
    return api.post("/v1/jobs", json={"model": "shapes", "inputs": inputs} | changes)


def finished(api, job_id, within_s=FINISH_WITHIN_S):
    """Returns the job once it is final; a service that restarts meanwhile is asked again."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            answer = api.get(f"/v1/jobs/{job_id}")
        except httpx.TransportError:
            continue
        if answer.status_code < 500:
            assert answer.status_code == 200, answer.text
            if answer.json()["status"] not in ("queued", "running"):
                return answer.json()
        time.sleep(0.05)
    pytest.fail("the job did not end")


def events(api, job_id):
    with api.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")]


def test_a_job_goes_from_202_to_its_results(api):
    answer = create(api, [entry("a"), entry("b", b"nothing")], metadata={"order": 7}, ttl_hours=2)
    assert answer.status_code == 202
    receipt = answer.json()
    assert set(receipt) == {"job_id", "status", "counts", "estimated_wait_ms", "request_id"}
    assert (receipt["status"], receipt["counts"]) == ("queued", {"submitted": 2})
    assert answer.headers["location"] == f"{str(api.base_url).rstrip('/')}/v1/jobs/{receipt['job_id']}"
    job = finished(api, receipt["job_id"])
    assert job["status"] == "succeeded"
    assert job["result_summary"] == {"items": 2, "succeeded": 1, "failed": 1}
    assert job["metadata"] == {"order": 7}
    assert (job["model"], job["model_version"]) == ("shapes", "2")
    assert "error" not in job
    listed = api.get(job["results_url"]).json()
    assert [(item["id"], item["status"]) for item in listed["items"]] == [("a", "succeeded"), ("b", "failed")]
    answer = listed["items"][0]["result"]
    assert set(answer) >= {"classes", "timings_ms", "image"}
    assert [answer[f"{name}_version"] for name in ("model", "labels", "calibration")] == ["2", "1", "1"]
    assert listed["items"][1]["error"]["code"] == "image.invalid_format"
    assert listed["page"] == {"size": 2}


def test_events_are_sse_and_end_with_done(api):
    job_id = create(api, [entry(f"i{n}") for n in range(4)]).json()["job_id"]
    seen = events(api, job_id)
    assert seen[0]["event"] == "status"
    assert sorted(event["item"]["id"] for event in seen if event["event"] == "item") == ["i0", "i1", "i2", "i3"]
    assert (seen[-1]["event"], seen[-1]["summary"]["succeeded"]) == ("done", 4)


def test_a_job_is_listed_filtered_and_canceled(api, stack):
    headers = stack.headers(tenant="rest-jobs")
    made = api.post("/v1/jobs", json={"model": "shapes", "inputs": [entry("a")]}, headers=headers).json()
    with httpx.Client(base_url=stack.edge_url, headers=headers) as other:
        finished(other, made["job_id"])
    listed = api.get("/v1/jobs", params={"status": "succeeded", "limit": 1}, headers=headers).json()
    assert [job["job_id"] for job in listed["jobs"]] == [made["job_id"]]
    submitted_at = listed["jobs"][0]["submitted_at"]
    later = api.get("/v1/jobs", params={"created_before": submitted_at}, headers=headers).json()
    assert later == {"jobs": [], "page": {"size": 0}}
    wrong = api.get("/v1/jobs", params={"cursor": "x"}, headers=headers)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "cursor.invalid")
    conflict = api.delete(f"/v1/jobs/{made['job_id']}", headers=headers)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "job.already_completed")
    waiting = create(api, [entry(f"i{n}", picture()) for n in range(100)]).json()["job_id"]
    assert (api.delete(f"/v1/jobs/{waiting}").status_code, api.delete(f"/v1/jobs/{waiting}").status_code) == (200, 200)
    assert api.get(f"/v1/jobs/{waiting}").json()["status"] == "canceled"


def test_results_come_in_pages_that_end_early_when_they_are_large(api):
    inputs = [
        entry(f"i{n}", encoded(900, 900), grad_cam={"enabled": True, "format": "npy"}, resize={"longest_side": 700})
        for n in range(4)
    ]
    job_id = create(api, inputs, response={"heatmap": "inline"}).json()["job_id"]
    finished(api, job_id)
    pages, cursor = [], None
    while True:
        page = api.get(f"/v1/jobs/{job_id}/results", params={"cursor": cursor} if cursor else {}).json()
        pages.append([item["id"] for item in page["items"]])
        cursor = page["page"].get("next_cursor")
        if not cursor:
            break
    assert pages == [["i0"], ["i1"], ["i2"], ["i3"]]


def replica_of(stack: Stack) -> int:
    """Returns the pid of the stack's server, not of its guard."""
    return by_role(stack.process.pid)["replica"][0]


def valkey_of(stack: Stack) -> int:
    for process in psutil.Process(stack.process.pid).children(recursive=True):
        if "valkey-server" in process.name():
            return process.pid
    raise AssertionError("the stack has no store")


def imaging_of(stack: Stack) -> int:
    workers = psutil.Process(replica_of(stack)).children(recursive=True)
    return next(process.pid for process in workers if "imaging_worker" in " ".join(process.cmdline()))


@pytest.mark.parametrize("victim", [replica_of, valkey_of, imaging_of])
def test_an_accepted_job_survives_the_kill_of_any_process(make_stack, victim):
    running = make_stack(job_lease_s=2)
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as api:
        job_id = create(api, [entry(f"i{n}", picture()) for n in range(60)]).json()["job_id"]
        os.kill(victim(running), signal.SIGKILL)
        job = finished(api, job_id)
        assert job["status"] == "succeeded"
        # A worker that dies over a picture costs that picture a retry or a refusal, never the rest of the job.
        summary = job["result_summary"]
        assert summary["succeeded"] + summary["failed"] == 60
        assert summary["succeeded"] >= 60 - (2 if victim is imaging_of else 0)
        page = api.get(f"/v1/jobs/{job_id}/results", params={"limit": 200}).json()
        assert [item["id"] for item in page["items"]] == [f"i{n}" for n in range(60)]
