"""Commands of `camserve models` that watch a canary."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from camserve_server.cli.command import DataDir, or_fail, settings_of
from camserve_server.cli.model_route_commands import Model, Revision, Why, change_routes

commands = typer.Typer()


@commands.command("guard")
def guard(
    model: Model,
    max_error_rate: Annotated[
        float | None, typer.Option(help="Share of failed calls above that of the other version; default 0.02.")
    ] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(help="95th percentile of the passes by that of the other version; default 2.")
    ] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Share of pictures with the same top class; default 0.8.")
    ] = None,
    max_class_shift: Annotated[
        float | None, typer.Option(help="Distance between the distributions of top classes; default 0.1.")
    ] = None,
    min_heatmap_iou: Annotated[
        float | None, typer.Option(help="Mean overlap of the heatmaps' top areas; default 0.3.")
    ] = None,
    max_centre_shift: Annotated[
        float | None, typer.Option(help="Mean distance of the heatmaps' centres, in diagonals; default 0.2.")
    ] = None,
    min_calls: Annotated[int | None, typer.Option(help="Calls before a limit is judged; default 50.")] = None,
    window_s: Annotated[int | None, typer.Option(help="Seconds whose figures count; default 300.")] = None,
    end: Annotated[bool, typer.Option("--end", help="Take the limits away instead.")] = False,
    revision: Revision = None,
    why: Why = "",
    data_dir: DataDir = None,
) -> None:
    """Set limits at which a canary of the model is rolled back by itself, or with --end none.

    What is not given is the default, whatever was set before. A limit of 1 never applies, nor does a least share of 0,
    or a latency ratio of 1000.
    """
    limits = {
        "max_error_rate": max_error_rate,
        "max_latency_ratio": max_latency_ratio,
        "min_agreement": min_agreement,
        "max_class_shift": max_class_shift,
        "min_heatmap_iou": min_heatmap_iou,
        "max_centre_shift": max_centre_shift,
        "min_calls": min_calls,
        "window_s": window_s,
    }

    def fill(request: Any) -> None:
        if end:
            request.end_guard.SetInParent()
            return
        request.guard.SetInParent()
        for name, value in limits.items():
            if value is not None:
                setattr(request.guard, name, value)

    change_routes(data_dir, model, revision, why, fill)


@commands.command("watch")
def watch(
    model: Model,
    interval: Annotated[int, typer.Option(help="Seconds between two looks.", min=1, max=60)] = 2,
    once: Annotated[bool, typer.Option("--once", help="Print the figures once and end.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show what the versions of a model do on all replicas, and how a canary stands to its limits.

    On a terminal the figures renew themselves until Ctrl-C; into a pipe each look is printed.
    """
    from camserve_server.cli.model_watch import watch

    or_fail(watch, settings_of(data_dir=data_dir), model, interval, once)
