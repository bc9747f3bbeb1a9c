"""One trace from the caller through edge, server, engine, stores, job items and webhooks."""

from __future__ import annotations

import json
import re
import secrets
import time

import httpx
import pytest
from tests.collector import collector
from tests.conftest import start_stack, stop_stack
from tests.e2e.receiver import receiver
from tests.e2e.test_jobs import entry
from tests.images import star_png

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A collector, a receiver of webhooks, and a stack that records only what its callers want recorded."""
    with collector() as spans, receiver() as seen:
        running = start_stack(
            tmp_path_factory.mktemp("stack"),
            otlp_endpoint=spans.endpoint,
            trace_ratio=0,
            webhook_allow=seen.place,
        )
        yield running, spans, seen
        stop_stack(running)


def context(*, sampled=True):
    """Returns the ids of a caller's trace and span, and the header that names them."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, {"traceparent": f"00-{trace_id}-{span_id}-{int(sampled):02x}"}


def infer(running, headers, **params):
    params = {"model": "shapes", "grad_cam.enabled": "true"} | params
    headers = running.headers() | {"content-type": "image/png"} | headers
    return httpx.post(f"{running.edge_url}/v1/infer", params=params, content=star_png(), headers=headers, timeout=60)


def logged(running, request_id):
    """Returns what the server logged of a call."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = map(json.loads, (running.data_dir / "logs" / "server.log").read_text().splitlines())
        if found := [line for line in lines if line.get("request_id") == request_id and line["event"] == "call"]:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("nothing was logged")


def named(spans, name):
    return [span for span in spans if span.name == name]


def only(spans, name):
    (span,) = named(spans, name)
    return span


def test_a_call_is_one_trace_from_the_edge_to_the_stores(traced):
    running, collected, _ = traced
    trace_id, caller, headers = context()
    answer = infer(running, headers)
    assert answer.status_code == 200, answer.text
    method = "camserve.v1.InferenceService/InferUpload"
    spans = collected.wait(trace_id, lambda names: {method, "ingress", "objects put"} <= names)
    by_id = {span.span_id: span for span in spans}
    edge, server = only(spans, "ingress"), only(spans, method)
    assert (edge.parent_id, server.parent_id) == (caller, edge.span_id)
    request_id = answer.json()["request_id"]
    assert server.about["camserve.request_id"] == request_id
    assert (server.about["camserve.code"], server.about["camserve.tenant"]) == ("OK", "tests")
    for name, within in [
        ("decode", server),
        ("predict", server),
        ("render", server),
        ("queue", only(spans, "predict")),
        ("inference", only(spans, "predict")),
        ("cam", only(spans, "predict")),
        ("objects put", server),
        ("redis usage_admit", server),
    ]:
        span = named(spans, name)[0]
        assert by_id[span.parent_id] == within, name
        assert within.begins <= span.ends <= within.ends, name
    assert len(named(spans, "imaging worker")) == 2
    # No path and no query, which hold ids and signatures.
    assert not [value for span in spans for value in span.about.values() if "v1/infer" in str(value)]
    line = logged(running, request_id)
    assert (line["trace_id"], line["span_id"]) == (trace_id, server.span_id)


def test_measured_times_lead_to_their_traces(traced):
    running, _, _ = traced
    trace_id, _, headers = context()
    assert infer(running, headers).status_code == 200
    text = httpx.get(
        f"http://127.0.0.1:{running.metrics_port}/metrics",
        headers={"accept": "application/openmetrics-text; version=1.0.0"},
    ).text
    exemplar = rf'^(camserve_\w+)_bucket\{{[^}}]*\}} \S+ # \{{trace_id="{trace_id}"\}}'
    with_exemplars = set(re.findall(exemplar, text, re.MULTILINE))
    assert {"camserve_call_seconds", "camserve_stage_seconds", "camserve_store_seconds"} <= with_exemplars


def test_items_and_webhooks_of_a_job_belong_to_the_trace_of_its_submission(traced):
    running, collected, seen = traced
    trace_id, _, headers = context()
    body = {"model": "shapes", "inputs": [entry("a"), entry("b")], "callback_url": seen.url("/traced")}
    answer = httpx.post(f"{running.edge_url}/v1/jobs", json=body, headers=running.headers() | headers, timeout=60)
    assert answer.status_code == 202, answer.text
    (event,) = seen.wait("/traced", 1)

    def complete(names):
        return {"webhook delivery", "job item"} <= names and len(named(collected.of(trace_id), "job item")) == 2

    spans = collected.wait(trace_id, complete)
    submission = only(spans, "camserve.v1.JobService/CreateJob")
    delivery = only(spans, "webhook delivery")
    for span in [*named(spans, "job item"), delivery]:
        assert span.parent_id == submission.span_id
        assert span.links == ((trace_id, submission.span_id),)
        assert span.about["camserve.job_id"] == answer.json()["job_id"]
    assert delivery.about["camserve.verdict"] == "delivered"
    assert event.headers["traceparent"] == f"00-{trace_id}-{delivery.span_id}-01"
    items = {span.span_id: span.about["camserve.item"] for span in named(spans, "job item")}
    assert {items[span.parent_id] for span in named(spans, "predict")} == {0, 1}


def test_a_trace_that_its_caller_does_not_record_is_not_recorded_but_named(traced):
    running, collected, _ = traced
    trace_id, _, headers = context(sampled=False)
    answer = infer(running, headers)
    assert logged(running, answer.json()["request_id"])["trace_id"] == trace_id
    after, _, sampled = context()
    assert infer(running, sampled).status_code == 200
    collected.wait(after, lambda names: "camserve.v1.InferenceService/InferUpload" in names)
    assert collected.of(trace_id) == []


def test_only_failures_of_the_service_are_failures_in_a_trace(traced):
    running, collected, _ = traced
    trace_id, _, headers = context()
    assert infer(running, headers, model="none").status_code == 404
    method = "camserve.v1.InferenceService/InferUpload"
    span = only(collected.wait(trace_id, lambda names: method in names), method)
    assert (span.about["camserve.code"], span.failed) == ("model.not_found", False)


def test_headers_of_a_context_that_mean_nothing_begin_a_trace_of_their_own(traced):
    running, _, _ = traced
    for nonsense in ("", "00-0-0-01", "ff" * 300, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        answer = infer(running, {"traceparent": nonsense})
        assert answer.status_code == 200, answer.text


def test_without_its_collector_the_service_answers_and_stops(make_stack):
    running = make_stack(otlp_endpoint="http://127.0.0.1:9", trace_ratio=1)
    assert infer(running, {}).status_code == 200
    began = time.monotonic()
    assert "stopped" in stop_stack(running)
    assert time.monotonic() - began < 30
    lines = (running.data_dir / "logs" / "server.log").read_text().splitlines()
    assert all(json.loads(line)["event"] for line in lines)
