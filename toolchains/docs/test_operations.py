"""The commands and the alerts of docs/operations.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_jobs import entry, finished
from tests.images import star_png

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()

pytestmark = pytest.mark.timeout(600)


def script(holding: str) -> str:
    """The block of the page with a word in it."""
    (found,) = [text for text in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if holding in text]
    return found


def run(text: str, cwd: Path, environment: dict[str, str]) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(
        command, cwd=cwd, env=environment | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_backup_brings_everything_back(tmp_path):
    running = start_stack(tmp_path / "first")
    try:
        headers = running.headers()
        with httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as api:
            stored = api.post("/v1/uploads", content=star_png(), headers={"content-type": "image/png"}).json()
            inputs = [entry("a", grad_cam={"enabled": True})]
            job_id = api.post("/v1/jobs", json={"model": "shapes", "inputs": inputs}).json()["job_id"]
            finished(api, job_id)
            webhook = api.post("/v1/webhooks", json={"url": "https://example.com/"}).json()
    finally:
        stop_stack(running)
    *lines, start = script("backup.tar").strip().splitlines()
    assert start == "CAMSERVE_DATA_DIR=$PWD/restored camserve up"
    run("\n".join(lines), tmp_path, running.environment)
    again = start_stack(tmp_path / "restored")
    try:
        # The token of before counts, so the keys are the same.
        with httpx.Client(base_url=again.edge_url, headers=headers, timeout=60) as api:
            named = {"model": "shapes", "image": {"storage_id": stored["storage_id"]}}
            assert api.post("/v1/infer", json=named).json()["classes"][0]["id"] == "star"
            (item,) = api.get(f"/v1/jobs/{job_id}/results").json()["items"]
            heatmap = api.get(item["result"]["heatmap"]["url"].replace(running.edge_url, again.edge_url))
            assert heatmap.content.startswith(b"\x89PNG")
            assert api.get(f"/v1/webhooks/{webhook['webhook_id']}").json()["url"] == "https://example.com/"
        metrics = script("/metrics").replace("9464", str(again.metrics_port))
        assert 'code="OK"' in run(metrics, tmp_path, again.environment)
        alerts_are_about_what_there_is(httpx.get(f"http://127.0.0.1:{again.metrics_port}/metrics").text)
    finally:
        stop_stack(again)


def alerts_are_about_what_there_is(metrics: str) -> None:
    """Every metric that a rule or the page names is one that the server has."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert len(rules) > 5
    known = set(re.findall(r"^# TYPE (camserve_\w+) ", metrics, re.MULTILINE))
    for rule in rules:
        assert set(re.findall(r"camserve_\w+", rule["expr"])) <= known, rule
    assert set(re.findall(r"\bcamserve_\w+", PAGE)) <= known
