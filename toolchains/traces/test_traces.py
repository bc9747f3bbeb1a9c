"""Spans of a running stack, through the collector that OpenTelemetry publishes, with our configuration."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from tests.collector import collector
from tests.conftest import free_ports, start_stack, stop_stack
from tests.e2e.test_traces import context, infer, only

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "toolchains" / "bin" / "otelcol" / "collector"
OURS = ROOT / "deploy" / "opentelemetry" / "collector.yml"


@contextmanager
def relaying(endpoint: str, folder: Path) -> Iterator[tuple[str, str]]:
    """The real collector on its way to another one; yields where it takes spans and where it shows its metrics."""
    takes, shows = free_ports(2)
    configuration = yaml.safe_load(OURS.read_text())
    configuration["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] = f"127.0.0.1:{takes}"
    configuration["exporters"]["otlp_grpc"]["endpoint"] = endpoint.removeprefix("http://")
    reader = {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": shows}}}}
    configuration["service"]["telemetry"] = {"metrics": {"readers": [reader]}}
    (folder / "collector.yml").write_text(yaml.safe_dump(configuration))
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([PROGRAM, f"--config={folder}/collector.yml"], stdout=log, stderr=log) as process,
    ):
        try:
            yield f"http://127.0.0.1:{takes}", f"http://127.0.0.1:{shows}/metrics"
        finally:
            process.terminate()


def counted(metrics_url: str, name: str) -> float:
    """Returns what the collector counted under a name, over all its labels."""
    lines = httpx.get(metrics_url, trust_env=False).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@pytest.fixture
def relayed(tmp_path):
    """A stack whose spans go through the real collector, what comes out there, and where the collector counts."""
    with collector() as end, relaying(end.endpoint, tmp_path) as (endpoint, metrics_url):
        running = start_stack(tmp_path / "stack", otlp_endpoint=endpoint, trace_ratio=0)
        yield running, end, metrics_url
        stop_stack(running)


def test_the_published_collector_takes_every_span_and_hands_it_on(relayed):
    running, end, metrics_url = relayed
    trace_id, caller, headers = context()
    assert infer(running, headers).status_code == 200
    method = "camserve.v1.InferenceService/InferUpload"
    spans = end.wait(trace_id, lambda names: {method, "ingress", "objects put"} <= names)
    edge, server = only(spans, "ingress"), only(spans, method)
    assert (edge.parent_id, server.parent_id) == (caller, edge.span_id)
    assert {span.parent_id for span in spans} <= {caller, *(span.span_id for span in spans)}
    deadline = time.monotonic() + 20
    while counted(metrics_url, "otelcol_exporter_sent_spans") < len(end.spans):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert counted(metrics_url, "otelcol_receiver_accepted_spans") >= len(spans)
    assert counted(metrics_url, "otelcol_receiver_refused_spans") == 0
