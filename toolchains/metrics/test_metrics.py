"""The real Prometheus reads the metrics, judges the alerts and answers what the dashboard asks."""

from __future__ import annotations

import re
import runpy
import subprocess

import httpx
import pytest
import yaml
from toolchains.metrics.prometheus import DASHBOARD, DEPLOY, expressions, scraping

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

pytestmark = pytest.mark.timeout(180)


def promtool(*arguments):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def prometheus(stack, tmp_path_factory):
    with scraping(stack, tmp_path_factory.mktemp("prometheus")) as api:
        yield api


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
