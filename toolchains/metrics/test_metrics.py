"""The real Prometheus reads the metrics, judges the alerts and answers what the dashboard asks."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml
from tests.conftest import free_ports
from tests.e2e.test_jobs import entry
from tests.images import star_png

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "camserve.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
# Without a GPU, a scanner, a canary or a failure these have nothing to show.
EMPTY = {
    "Calls that failed, by code",
    "Calls with a key",
    "Memory of the GPU",
    "Scans",
    "Share of a canary",
    "Agreement of a shadow's top class",
    "Overlap of a shadow's heatmaps, median",
    "Predictions that failed",
    "Questions that failed",
    "Attempts to deliver",
    "From event to delivery",
    "Objects, p95",
}
# Where to keep a picture of the real pages; without it none is made.
PICTURE = os.environ.get("CAMSERVE_METRICS_PICTURE")

pytestmark = pytest.mark.timeout(180)


def promtool(*arguments):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] == "timeseries"]


def expressions():
    asked = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    return [(title, _plain(expression)) for title, expression in asked]


def _plain(expression):
    return expression.replace("$__rate_interval", "10s").replace('"$instance"', '".*"')


@pytest.fixture(scope="module")
def prometheus(stack, tmp_path_factory):
    """Prometheus with our configuration but for the place of the replica and the pace, after some traffic."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_ports(1)[0]
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
                _traffic(stack)
                yield api
        finally:
            process.terminate()


def _up(api):
    try:
        found = api.get("/api/v1/query", params={"query": "up"}).json()
    except (httpx.TransportError, ValueError):
        return False
    return any(series["value"][1] == "1" for series in found.get("data", {}).get("result", []))


def _until(holds, log):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def _traffic(stack):
    """Calls and a job for some seconds, so that rates have two scrapes to go by."""
    headers = stack.headers()
    ends = time.monotonic() + 6
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


def ask(api, expression):
    answer = api.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    return answer["data"]["result"]


def test_rules_are_sound_and_fire_when_they_should():
    for arguments in (
        ("check", "rules", str(DEPLOY / "prometheus" / "alerts.yml")),
        ("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")),
        ("test", "rules", str(DEPLOY / "prometheus" / "alerts_test.yml")),
    ):
        ran = promtool(*arguments)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_metrics_are_well_formed(stack):
    text = httpx.get(f"http://127.0.0.1:{stack.metrics_port}/metrics").text
    ran = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    # Python's own collectors name some of theirs in ways that the linter would not.
    ours = [line for line in (ran.stdout + ran.stderr).splitlines() if line.startswith("camserve_")]
    assert ours == []


def test_the_dashboard_is_what_its_script_writes():
    made = runpy.run_path(str(DEPLOY / "grafana" / "dashboard.py"))["dashboard"]()
    assert made == DASHBOARD
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)


def test_every_panel_has_an_answer(prometheus):
    silent = set()
    for title, expression in expressions():
        series = ask(prometheus, expression)
        if not [each for each in series if each["value"][1] != "NaN"]:
            silent.add(title)
    assert silent <= EMPTY


def test_no_alert_fires_on_a_healthy_service_and_all_are_known(prometheus):
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in RULES}
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_panels_and_alerts_name_metrics_that_exist(stack):
    text = httpx.get(f"http://127.0.0.1:{stack.metrics_port}/metrics").text
    known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_sum", "_count")}
    asked = [expression for _, expression in expressions()] + [rule["expr"] for rule in RULES]
    named = {name for expression in asked for name in re.findall(r"\b(?:camserve|process)_\w+", expression)}
    assert named - known == set()


@pytest.mark.skipif(not PICTURE, reason="makes a picture for the docs when CAMSERVE_METRICS_PICTURE says where")
def test_a_picture_of_the_graphs(prometheus):
    from playwright.sync_api import sync_playwright

    titles = ["Calls by method", "Time of a call for one image", "Stages, p95", "Redis, p95"]
    chosen = [next(each for title, each in expressions() if title == wanted) for wanted in titles]
    query = "&".join(
        f"g{at}.expr={httpx.QueryParams({'q': each})!s}".replace("q=", "", 1) + f"&g{at}.tab=0&g{at}.range_input=1m"
        for at, each in enumerate(chosen)
    )
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.goto(f"{prometheus.base_url}/graph?{query}")
        page.wait_for_timeout(5000)
        page.screenshot(path=PICTURE, full_page=True)
        browser.close()
