"""The real Prometheus beside a stack, with our configuration."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from tests.conftest import Stack, free_ports
from tests.e2e.test_jobs import entry
from tests.images import star_png

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "camserve.json").read_text())


def expressions() -> list[tuple[str, str]]:
    """Returns the title of each panel with what it asks, as Grafana would fill it in."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] == "timeseries"]
    asked = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    return [(title, text.replace("$__rate_interval", "10s").replace('"$instance"', '".*"')) for title, text in asked]


@contextmanager
def scraping(stack: Stack, folder: Path, traffic_s: float = 6.0) -> Iterator[httpx.Client]:
    """Prometheus with our configuration but for the place of the replica and the pace, after some traffic."""
    port = free_ports(1)[0]
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", folder)
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{stack.metrics_port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as api:
                _until(lambda: _up(api), folder / "log")
                _traffic(stack, traffic_s)
                yield api
        finally:
            process.terminate()


def _up(api: httpx.Client) -> bool:
    try:
        found = api.get("/api/v1/query", params={"query": "up"}).json()
    except (httpx.TransportError, ValueError):
        return False
    return any(series["value"][1] == "1" for series in found.get("data", {}).get("result", []))


def _until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def _traffic(stack: Stack, seconds: float) -> None:
    """Calls and a job for some seconds, so that rates have two scrapes to go by."""
    headers = stack.headers()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        answer = httpx.post(
            f"{stack.edge_url}/v1/infer",
            params={"model": "shapes", "grad_cam.enabled": "true"},
            content=star_png(),
            headers=headers | {"content-type": "image/png"},
        )
        assert answer.status_code == 200, answer.text
        body = {"model": "shapes", "inputs": [entry("a")]}
        assert httpx.post(f"{stack.edge_url}/v1/jobs", json=body, headers=headers).status_code == 202
        time.sleep(0.2)
