"""Every ring is rotated under load, on two replicas: no call fails, and what was made before still counts."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from tests.conftest import camserve_program
from tests.e2e.test_jobs import create, entry, finished
from tests.faults.pair import pair
from tests.images import star_png

from camserve_server.base.config import load
from camserve_server.cli.key_commands import RINGS
from camserve_server.cli.tokens import issuer
from camserve_server.core.tokens import SCOPES

pytestmark = pytest.mark.timeout(600)


def call_all(api: httpx.Client, links: list[str]) -> None:
    """One of each kind that a ring has a part in; raises what went wrong."""
    image = {"content": star_png(), "headers": {"content-type": "image/png"}}
    made = api.post("/v1/infer?model=shapes&grad_cam.enabled=true", **image).raise_for_status().json()
    links.append(made["heatmap"]["url"])
    api.get(links[-1]).raise_for_status()
    storage_id = api.post("/v1/uploads", **image).raise_for_status().json()["storage_id"]
    inputs = [{"id": "a", "image": {"storage_id": storage_id}}]
    key = {"idempotency-key": uuid4().hex}
    body = {"model": "shapes", "inputs": inputs}
    first = api.post("/v1/jobs", json=body, headers=key).raise_for_status().json()
    assert api.post("/v1/jobs", json=body, headers=key).raise_for_status().json() == first
    page = api.get("/v1/jobs?limit=1").raise_for_status().json()["page"]
    if cursor := page.get("next_cursor"):
        api.get("/v1/jobs", params={"limit": 1, "cursor": cursor}).raise_for_status()
    api.get("/v1/webhooks").raise_for_status()


def keep_calling(url: str, data_dir: Path, stop: threading.Event, rounds: list[list[str]], failed: list[str]) -> None:
    while not stop.is_set():
        try:
            # Each round with a token of its own: of the key that signs now.
            with httpx.Client(base_url=url, headers=signed_in(data_dir), timeout=30) as api:
                links: list[str] = []
                call_all(api, links)
                rounds.append(links)
        except (httpx.HTTPError, AssertionError) as error:
            failed.append(f"{error!r} {getattr(getattr(error, 'response', None), 'text', '')}")


def signed_in(data_dir: Path) -> dict[str, str]:
    token = issuer(load(data_dir=data_dir)).issue(tenant="rotation", subject="tests", scopes=SCOPES, ttl_s=3600)
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("after", ["0", "2"])
def test_no_call_fails_while_every_ring_is_rotated(after: str, tmp_path: Path) -> None:
    with pair(tmp_path) as running:
        headers = signed_in(running.data_dir)
        with httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as api:
            links: list[str] = []
            call_all(api, links)
            job_id = create(api, [entry("a", grad_cam={"enabled": True})]).json()["job_id"]
            finished(api, job_id)
            webhook = api.post("/v1/webhooks", json={"url": "https://example.com/"}).json()
            stop, rounds, failed = threading.Event(), [], []
            arguments = (running.edge_url, running.data_dir, stop, rounds, failed)
            caller = threading.Thread(target=keep_calling, args=arguments)
            caller.start()
            try:
                for ring in RINGS:
                    command = [camserve_program(), "keys", "rotate", ring, "--after", after]
                    subprocess.run([*command, "--data-dir", running.data_dir], check=True, capture_output=True)
                    seen = len(rounds)
                    # Keys of tokens are published for two minutes before they sign; the others begin at once or soon.
                    while caller.is_alive() and not failed and len(rounds) < seen + 2:
                        stop.wait(0.05)
            finally:
                stop.set()
                caller.join()
            assert not failed
            # What was made before: a token, links, uploads, results, secrets.
            assert api.get(links[0]).content.startswith(b"\x89PNG")
            (item,) = api.get(f"/v1/jobs/{job_id}/results").json()["items"]
            assert api.get(item["result"]["heatmap"]["url"]).content.startswith(b"\x89PNG")
            assert api.get(f"/v1/webhooks/{webhook['webhook_id']}").json()["url"] == "https://example.com/"
            rotated = api.post(f"/v1/webhooks/{webhook['webhook_id']}:rotate").raise_for_status().json()
            assert rotated["secret"] != webhook["secret"]
