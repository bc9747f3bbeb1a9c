"""Writes the dashboard for Grafana to standard output, from which deploy/grafana/camserve.json comes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

_WIDTH, _HEIGHT, _PER_ROW = 8, 8, 3
_IMAGE_CALLS = 'method=~"camserve.v1.InferenceService.Infer(Upload)?"'
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """A graph: queries by legend, and the unit of their values as Grafana names it."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    about: str = ""


def _rate(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{_of(where)}}}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', labels, where)})"


def _quantiles(metric: str, where: str = "") -> dict[str, str]:
    return {f"p{round(100 * share)}": _quantile(share, metric, where=where) for share in (0.5, 0.95, 0.99)}


def _of(where: str = "") -> str:
    return ", ".join(filter(None, ['instance=~"$instance"', where]))


ROWS: dict[str, list[Panel]] = {
    "Calls": [
        Panel("Calls by method", {"{{method}}": _rate("camserve_calls_total", "method")}, "reqps"),
        Panel(
            "Calls that failed, by code",
            {"{{code}}": _rate("camserve_calls_total", "code", 'code!="OK"')},
            "reqps",
            "Codes of docs/errors.md; of the caller and of the service alike.",
        ),
        Panel("Time of a call for one image", _quantiles("camserve_call_seconds", _IMAGE_CALLS), "s"),
        Panel(
            "Calls under way",
            {
                "all {{instance}}": f"camserve_calls_running{{{_of()}}}",
                "for one image {{instance}}": f"camserve_gate_calls{{{_of()}}}",
            },
        ),
        Panel("What the edge was told", {"{{verdict}}": _rate("camserve_limiter_answers_total", "verdict")}, "reqps"),
        Panel("Calls with a key", {"{{outcome}}": _rate("camserve_idempotent_calls_total", "outcome")}, "reqps"),
    ],
    "Where the time goes": [
        Panel("Stages, p95", {"{{stage}}": _quantile(0.95, "camserve_stage_seconds", "stage")}, "s"),
        Panel(
            "Images a forward pass",
            {
                "{{model}}": f"{_rate('camserve_batch_images_sum', 'model')} / "
                f"{_rate('camserve_batch_images_count', 'model')}"
            },
        ),
        Panel(
            "Time of the device in use",
            {"{{instance}} {{model}} {{version}}": _rate("camserve_device_seconds_total", "instance, model, version")},
            "percentunit",
        ),
        Panel(
            "Images that wait",
            {
                "device {{instance}} {{model}} {{version}}": f"camserve_engine_queue{{{_of()}}}",
                "imaging {{instance}}": f"camserve_imaging_queue{{{_of()}}}",
            },
        ),
        Panel(
            "Longest wait for the device",
            {"{{instance}} {{model}} {{version}}": f"camserve_engine_oldest_seconds{{{_of()}}}"},
            "s",
        ),
        Panel("Imaging workers at work", {"{{instance}}": f"camserve_imaging_busy{{{_of()}}}"}),
    ],
    "Jobs and webhooks": [
        Panel(
            "Items of jobs",
            {
                "wait": f"max(camserve_job_items_queued{{{_of()}}})",
                "run": f"max(camserve_job_items_running{{{_of()}}})",
            },
        ),
        Panel("Age of the oldest item", {"age": f"max(camserve_job_oldest_seconds{{{_of()}}})"}, "s"),
        Panel("Items done", {"{{outcome}}": _rate("camserve_job_items_total", "outcome")}, "ops"),
        Panel("Attempts to deliver", {"{{verdict}}": _rate("camserve_webhook_attempts_total", "verdict")}, "ops"),
        Panel("From event to delivery", _quantiles("camserve_webhook_lag_seconds"), "s"),
        Panel("Most overdue event", {"overdue": f"max(camserve_webhook_overdue_seconds{{{_of()}}})"}, "s"),
    ],
    "Models": [
        Panel("Versions by state", {"{{state}}": f"sum by (state) (camserve_model_state{{{_of()}}})"}),
        Panel(
            "Predictions",
            {"{{model}} {{version}} {{role}}": _rate("camserve_model_calls_total", "model, version, role")},
            "ops",
        ),
        Panel(
            "Predictions that failed",
            {"{{model}} {{version}} {{role}}": _rate("camserve_model_errors_total", "model, version, role")},
            "ops",
        ),
        Panel(
            "Share of a canary",
            {"{{model}} {{version}}": f"max by (model, version) (camserve_model_canary_percent{{{_of()}}})"},
            "percent",
        ),
        Panel(
            "Agreement of a shadow's top class",
            {
                "{{model}} {{version}}": _rate("camserve_model_compared_total", "model, version", 'top_class="same"')
                + " / "
                + _rate("camserve_model_compared_total", "model, version")
            },
            "percentunit",
        ),
        Panel(
            "Overlap of a shadow's heatmaps, median",
            {"{{model}} {{version}}": _quantile(0.5, "camserve_model_cam_iou", "model, version")},
            "percentunit",
        ),
    ],
    "Stores and parts": [
        Panel(
            "Redis, p95",
            {"{{operation}}": _quantile(0.95, "camserve_store_seconds", "operation", 'store="redis"')},
            "s",
        ),
        Panel(
            "Objects, p95",
            {"{{operation}}": _quantile(0.95, "camserve_store_seconds", "operation", 'store="objects"')},
            "s",
        ),
        Panel(
            "Questions that failed",
            {"{{store}} {{operation}}": _rate("camserve_store_errors_total", "store, operation")},
            "ops",
        ),
        Panel(
            "Parts that are left alone (2), tried (1), called (0)",
            {"{{part}} {{name}}": f"max by (part, name) (camserve_circuit_state{{{_of()}}})"},
        ),
        Panel("Scans", {"{{verdict}}": _rate("camserve_scans_total", "verdict")}, "ops"),
        Panel(
            "Limits not checked, log lines lost",
            {
                "limits": _rate("camserve_limits_unchecked_total", "instance"),
                "lines": _rate("camserve_log_failures_total", "instance"),
            },
            "ops",
        ),
    ],
    "Processes and device": [
        Panel(
            "Memory",
            {
                "replica {{instance}}": f"process_resident_memory_bytes{{{_of()}}}",
                "imaging {{instance}}": f"camserve_imaging_memory_bytes{{{_of()}}}",
                "images in flight {{instance}}": f"camserve_images_in_flight_bytes{{{_of()}}}",
            },
            "bytes",
        ),
        Panel("CPU of the replica", {"{{instance}}": _rate("process_cpu_seconds_total", "instance")}, "percentunit"),
        Panel("Memory of the GPU", {"{{kind}} {{instance}}": f"camserve_device_memory_bytes{{{_of()}}}"}, "bytes"),
    ],
}


def dashboard() -> dict[str, Any]:
    """Returns the dashboard as Grafana reads it (schema 39, Grafana 10 and later)."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
                "panels": [],
            }
        )
        top += 1
        for at, panel in enumerate(row):
            place = {"x": at % _PER_ROW * _WIDTH, "y": top + at // _PER_ROW * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            panels.append(_panel(panel, place))
        top += -(-len(row) // _PER_ROW) * _HEIGHT
    for number, each in enumerate(panels, 1):
        each["id"] = number
    return {
        "uid": "camserve",
        "title": "camserve",
        "tags": ["camserve"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance",
                    "label": "Replica",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": "label_values(camserve_calls_running, instance)",
                    "refresh": 2,
                    "includeAll": True,
                    "allValue": ".*",
                    "multi": True,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "exemplar": "_bucket" in expression,
            }
            for at, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
