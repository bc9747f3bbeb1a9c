"""Images by URL: in a call, a batch and a job."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx
import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_jobs import finished
from tests.images import star_png


class Origin(BaseHTTPRequestHandler):
    asked: ClassVar[Counter[str]] = Counter()
    slow, held, hung = threading.Event(), threading.Event(), threading.Event()

    def do_GET(self):
        self.asked[self.path] += 1
        if self.path == "/slow.png":
            self.slow.wait(20)
        if self.path == "/held.png":
            self.held.wait(20)
        if self.path == "/hung.png":
            self.hung.wait(20)
        if self.path == "/late.png" and self.asked[self.path] < 2:
            self.send_error(503)
            return
        found = self.path != "/absent.png"
        body = star_png() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def origin():
    with ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        Origin.slow.set()
        Origin.held.set()
        Origin.hung.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def stack(origin, tmp_path_factory):
    place = origin.removeprefix("http://").replace(":", "/32:")
    running = start_stack(
        tmp_path_factory.mktemp("stack"), fetch_allow=place, fetch_timeout_s=3, max_image_bytes=50_000
    )
    yield running
    stop_stack(running)


@pytest.fixture
def api(stack):
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as client:
        yield client


def infer(api, url, **changes):
    return api.post("/v1/infer", json={"model": "shapes", "image": {"url": url}} | changes)


@pytest.fixture(autouse=True)
def origin_is_asked(api, origin):
    """Waits until the circuit is closed that the test before may have opened."""
    while infer(api, f"{origin}/a.png").status_code != 200:
        time.sleep(0.1)


def test_an_image_is_fetched_and_classified(api, origin):
    answer = infer(api, f"{origin}/a.png")
    assert answer.status_code == 200, answer.text
    assert answer.json()["classes"][0]["id"] == "star"
    assert answer.json()["image"]["media_type"] == "image/png"


@pytest.mark.parametrize(
    "url", ["http://example.com/a.png", "https://127.0.0.1/a", "https://2130706433/", "https://u:p@example.com/", "x"]
)
def test_a_url_that_is_never_fetched_is_refused_in_every_place(api, url):
    wanted = (400, "image.url_not_allowed")
    entry = {"id": "a", "image": {"url": url}}
    for answer in (
        infer(api, url),
        api.post("/v1/infer:batch", json={"model": "shapes", "inputs": [entry]}),
        api.post("/v1/jobs", json={"model": "shapes", "inputs": [entry]}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == wanted
        assert url not in answer.text or url == "x"


def test_every_failure_on_the_way_reads_the_same(api, origin):
    absent, slow = infer(api, f"{origin}/absent.png"), infer(api, f"{origin}/slow.png")
    bodies = [answer.json()["error"] for answer in (absent, slow)]
    assert [(body["status"], body["code"]) for body in bodies] == [(422, "image.fetch_failed")] * 2
    assert bodies[0]["message"] == bodies[1]["message"]
    assert "details" not in bodies[0]


def test_a_batch_takes_every_source(api, origin):
    inputs = [
        {"id": "url", "image": {"url": f"{origin}/b.png"}},
        {"id": "bytes", "image": {"bytes": base64.b64encode(star_png()).decode()}},
        {"id": "gone", "image": {"url": f"{origin}/absent.png"}},
    ]
    answer = api.post("/v1/infer:batch", json={"model": "shapes", "inputs": inputs})
    events = [json.loads(line) for line in answer.text.splitlines()]
    status = {event["item"]["id"]: event["item"]["status"] for event in events if event["event"] == "item"}
    assert status == {"url": "succeeded", "bytes": "succeeded", "gone": "failed"}


def test_a_job_fetches_when_its_turn_comes_and_tries_again(api, origin):
    inputs = [{"id": name, "image": {"url": f"{origin}/{name}.png"}} for name in ("late", "absent")]
    job = finished(api, api.post("/v1/jobs", json={"model": "shapes", "inputs": inputs}).json()["job_id"])
    assert job["result_summary"] == {"items": 2, "succeeded": 1, "failed": 1}
    items = api.get(f"/v1/jobs/{job['job_id']}/results").json()["items"]
    assert [item["status"] for item in items] == ["succeeded", "failed"]
    assert items[1]["error"]["code"] == "image.fetch_failed"


def test_respond_async_does_not_wait_for_the_origin(api, origin):
    # The origin does not answer within the time for a fetch, so waiting for it would end in 422.
    answer = api.post(
        "/v1/infer",
        json={"model": "shapes", "image": {"url": f"{origin}/slow.png"}},
        headers={"prefer": "respond-async"},
    )
    assert answer.status_code == 202
    api.delete(f"/v1/jobs/{answer.json()['job_id']}")


def test_a_slow_origin_holds_up_no_other_tenant(api, stack, origin):
    inputs = [{"id": f"i{n}", "image": {"url": f"{origin}/held.png"}} for n in range(40)]
    busy = threading.Thread(target=lambda: api.post("/v1/infer:batch", json={"model": "shapes", "inputs": inputs}))
    busy.start()
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant="other"), timeout=60) as other:
        while Origin.asked["/held.png"] < 8:
            time.sleep(0.01)
        answer = infer(other, f"{origin}/c.png")
        assert answer.status_code == 200
        assert busy.is_alive()
    Origin.held.set()
    busy.join()


def test_jobs_of_tenants_whose_origins_hang_hold_up_no_other_tenants_jobs(stack, origin):
    entry = {"id": "a", "image": {"bytes": base64.b64encode(star_png()).decode()}}
    hung = [{"id": f"i{n}", "image": {"url": f"{origin}/hung.png"}} for n in range(40)]
    with ExitStack() as clients:

        def tenant(name):
            client = httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant=name), timeout=60)
            return clients.enter_context(client)

        slow = [tenant(f"slow{n}") for n in range(3)]
        for each in slow:
            assert each.post("/v1/jobs", json={"model": "shapes", "inputs": hung}).status_code == 202
        while Origin.asked["/hung.png"] < 8 * len(slow):
            time.sleep(0.01)
        other = tenant("quick")
        job = finished(other, other.post("/v1/jobs", json={"model": "shapes", "inputs": [entry]}).json()["job_id"])
        assert job["status"] == "succeeded"
        # Most of what hung then still does: had the job waited for its end, all of them had been asked for again.
        assert Origin.asked["/hung.png"] < 2 * 8 * len(slow)
    Origin.hung.set()
