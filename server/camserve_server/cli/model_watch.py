"""What the versions of a model do, shown live from the running server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from camserve.v1 import model_watch_pb2 as pb
from camserve_server.base.config import Settings
from camserve_server.cli.admin import ask
from camserve_server.cli.model_routes import canary_line, change_line, guard_line

# Of a pipe, which has none: no line is broken.
_WIDTH = 200
_CLASSES = 4
_STYLES = {"passed": "bold red", "waiting": "dim", "kept": ""}


def watch(settings: Settings, model: str, interval_s: int, once: bool) -> None:
    """Shows the figures until Ctrl-C, or once; raises ValueError when no server answers or it ends the stream."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    request = pb.WatchModelRequest(model=model, interval_s=interval_s)

    def show(admin: Any, options: dict[str, Any]) -> None:
        # Without the deadline of a plain call.
        looks: Iterator[pb.WatchModelResponse] = admin.WatchModel(request, metadata=options["metadata"])
        if once or not console.is_terminal:
            for seen in looks:
                console.print(figures(seen))
                if once:
                    return
            return
        with Live(console=console, auto_refresh=False) as live:
            for seen in looks:
                live.update(figures(seen), refresh=True)

    with contextlib.suppress(KeyboardInterrupt):
        ask(settings, show)


def figures(seen: pb.WatchModelResponse) -> RenderableType:
    """Returns what is shown of one look."""
    routes, at = seen.routes, seen.read_at.ToDatetime(UTC)
    head = f"{routes.model}  revision {routes.revision}  {at:%Y-%m-%d %H:%M:%S}  last {seen.window_s} s"
    lines = [canary_line(routes.canary)] if routes.HasField("canary") else []
    lines.append(guard_line(routes.guard) if routes.HasField("guard") else "no guard: nothing is rolled back")
    if seen.HasField("last_change"):
        lines.append(f"last change: {change_line(seen.last_change)}")
    parts: list[RenderableType] = [Text(head), *(Text(f"  {line}") for line in lines), _versions(seen)]
    if seen.agreements:
        parts.append(_agreements(seen))
    if seen.checks:
        parts.append(_checks(seen))
    return Group(*parts)


def _versions(seen: pb.WatchModelResponse) -> Table:
    table = _table("version", "role", "calls", "errors", "p50 ms", "p95 ms", "top classes")
    for one in seen.versions:
        top = ", ".join(
            f"{each.id} {_share(each.calls, one.calls - one.errors)}" for each in one.top_classes[:_CLASSES]
        )
        times = (_number(one.p50_ms, one.HasField("p50_ms")), _number(one.p95_ms, one.HasField("p95_ms")))
        table.add_row(one.version, one.role, str(one.calls), str(one.errors), *times, top)
    return table


def _agreements(seen: pb.WatchModelResponse) -> Table:
    table = _table("compared", "pictures", "same class", "class shift", "heatmaps", "blank", "IoU", "centre shift")
    for one in seen.agreements:
        table.add_row(
            f"{one.version} with {one.against}",
            str(one.pictures),
            _share(one.agreeing, one.pictures),
            _number(one.class_shift),
            str(one.heatmaps),
            str(one.blank_heatmaps),
            _number(one.heatmap_iou, one.HasField("heatmap_iou")),
            _number(one.centre_shift, one.HasField("centre_shift")),
        )
    return table


def _checks(seen: pb.WatchModelResponse) -> Table:
    table = _table(f"limit of {seen.watched}", "value", "bound", "calls", "state")
    for one in seen.checks:
        value = _number(one.value, one.HasField("value"))
        words = one.limit.replace("_", " ")
        table.add_row(words, value, _number(one.bound), str(one.calls), one.state, style=_STYLES.get(one.state))
    return table


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.no_wrap = True
    return table


def _number(value: float, known: bool = True) -> str:
    return f"{value:.3g}" if known else "-"


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f} %" if total else "-"
