"""`camserve top`: what replicas, versions, queues and tenants do, as it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from camserve_server.base.errors import ApiError
from camserve_server.cli.scrape import Look, Span, look, quantile
from camserve_server.stores.redis import connect
from camserve_server.stores.tenant_work import TenantWork, read_tenant_work

_TENANTS, _PIPE_COLUMNS = 10, 160
_ONE_IMAGE = ("camserve.v1.InferenceService.Infer", "camserve.v1.InferenceService.InferUpload")
_FAULTS = ("internal", "upstream.failed", "store.unavailable", "model.unavailable", "circuit.open", "timeout.exceeded")


class Top:
    """Looks at replicas by the addresses of their metrics, and at Redis where there is an address of one."""

    def __init__(self, replicas: Sequence[str], redis_url: str | None) -> None:
        self._replicas = replicas
        self._redis_url = redis_url
        self._pool = ThreadPoolExecutor(max(1, len(replicas)))
        self._last = self._looks()

    def page(self) -> RenderableType:
        """Returns what happened since the last page."""
        now = self._looks()
        spans = {at: Span(before, after) for at, before, after in zip(self._replicas, self._last, now, strict=True)}
        self._last = now
        answered = {at: span for at, span in spans.items() if span.after.answered}
        return Group(
            _replicas(spans),
            _versions(answered),
            _work(answered),
            *([_tenants(self._tenant_work())] if self._redis_url else []),
        )

    def _looks(self) -> list[Look]:
        return list(self._pool.map(look, self._replicas))

    def _tenant_work(self) -> list[TenantWork] | None:
        async def read(url: str) -> list[TenantWork]:
            client = connect(url)
            try:
                return await read_tenant_work(client)
            finally:
                await client.aclose()

        try:
            return asyncio.run(read(self._redis_url or ""))
        except ApiError:
            return None


def show(top: Top, *, interval_s: float, once: bool) -> None:
    """Shows a page and then, unless `once`, the next each time, until Ctrl-C."""
    time.sleep(interval_s)
    if once:
        console = Console()
        # What reads a pipe has no edge at which columns must be cut.
        (console if console.is_terminal else Console(width=_PIPE_COLUMNS)).print(top.page())
        return
    with Live(top.page(), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            live.update(top.page(), refresh=True)


def _replicas(spans: dict[str, Span]) -> Table:
    table = _table("replica", "calls/s", "faults/s", "p50", "p95", "calls", "imaging", "images MiB", "CPU", "MiB")
    for at, span in spans.items():
        if not span.after.answered:
            table.add_row(_place(at), "no answer", *[""] * 8)
            continue
        now = span.after
        times = [span.buckets("camserve_call_seconds", method=method) for method in _ONE_IMAGE]
        table.add_row(
            _place(at),
            f"{span.rate('camserve_calls_total'):.1f}",
            f"{sum(span.rate('camserve_calls_total', code=code) for code in _FAULTS):.1f}",
            _milliseconds(quantile(0.5, times)),
            _milliseconds(quantile(0.95, times)),
            f"{now.sum('camserve_calls_running'):.0f}",
            f"{now.sum('camserve_imaging_busy'):.0f} + {now.sum('camserve_imaging_queue'):.0f}",
            f"{now.sum('camserve_images_in_flight_bytes') / 2**20:.0f}",
            f"{100 * span.rate('process_cpu_seconds_total'):.0f} %",
            f"{now.sum('process_resident_memory_bytes') / 2**20:.0f}",
        )
    return table


def _versions(spans: dict[str, Span]) -> Table:
    table = _table("version", "state", "images/s", "a batch", "device", "p95", "wait", "oldest", "canary", "errors/s")
    looks = [span.after for span in spans.values()]
    states: dict[tuple[str, str], list[str]] = {}
    for each in looks:
        for sample in each.of("camserve_model_state"):
            states.setdefault((sample.labels["model"], sample.labels["version"]), []).append(sample.labels["state"])
    for (model, version), known in sorted(states.items()):
        which = {"model": model, "version": version}
        batches = sum(span.increase("camserve_batch_images_count", model=model) for span in spans.values())
        images = sum(span.increase("camserve_batch_images_sum", model=model) for span in spans.values())
        times = [span.buckets("camserve_model_seconds", role="answer", **which) for span in spans.values()]
        canary = max((each.sum("camserve_model_canary_percent", **which) for each in looks), default=0.0)
        oldest = max((each.sum("camserve_engine_oldest_seconds", **which) for each in looks), default=0.0)
        table.add_row(
            f"{model} {version}",
            ", ".join(sorted(set(known))),
            f"{sum(span.rate('camserve_model_calls_total', **which) for span in spans.values()):.1f}",
            f"{images / batches:.1f}" if batches else "",
            f"{100 * sum(span.rate('camserve_device_seconds_total', **which) for span in spans.values()):.0f} %",
            _milliseconds(quantile(0.95, times)),
            f"{sum(each.sum('camserve_engine_queue', **which) for each in looks):.0f}",
            _milliseconds(oldest),
            f"{canary:g} %" if canary else "",
            f"{sum(span.rate('camserve_model_errors_total', **which) for span in spans.values()):.1f}",
        )
    return table


def _work(spans: dict[str, Span]) -> Table:
    table = _table("jobs", "wait", "run", "oldest", "items/s", "webhooks/s", "overdue", "Redis p95", "left alone")
    looks = [span.after for span in spans.values()]
    left = {
        f"{sample.labels['part']} {sample.labels['name']}"
        for each in looks
        for sample in each.of("camserve_circuit_state")
        if sample.value == 2
    }
    stores = [span.buckets("camserve_store_seconds", store="redis") for span in spans.values()]
    table.add_row(
        "",
        f"{max((each.sum('camserve_job_items_queued') for each in looks), default=0):.0f}",
        f"{max((each.sum('camserve_job_items_running') for each in looks), default=0):.0f}",
        _seconds(max((each.sum("camserve_job_oldest_seconds") for each in looks), default=0)),
        f"{sum(span.rate('camserve_job_items_total') for span in spans.values()):.1f}",
        f"{sum(span.rate('camserve_webhook_attempts_total') for span in spans.values()):.1f}",
        _seconds(max((each.sum("camserve_webhook_overdue_seconds") for each in looks), default=0)),
        _milliseconds(quantile(0.95, stores)),
        ", ".join(sorted(left)),
    )
    return table


def _tenants(work: list[TenantWork] | None) -> RenderableType:
    table = _table("tenant", "calls", "items wait", "items run")
    for tenant in (work or ())[:_TENANTS]:
        table.add_row(tenant.name, str(tenant.calls), str(tenant.queued), str(tenant.running))
    if work is None:
        table.add_row("Redis does not answer", "", "", "")
    elif len(work) > _TENANTS:
        table.add_row(f"and {len(work) - _TENANTS} more", "", "", "")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, expand=True, header_style="bold", pad_edge=False)
    table.add_column(first, no_wrap=True, ratio=2)
    for name in others:
        table.add_column(name, justify="right", ratio=1)
    return table


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.0f} ms"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s"


def _place(address: str) -> str:
    return address.removeprefix("http://").removesuffix("/metrics")
