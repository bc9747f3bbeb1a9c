"""`cam jobs`: many images in the background."""

from __future__ import annotations

import csv
import json as json_text
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from camserve_client.cli import heatmaps, shown, sources
from camserve_client.cli.commands import Group
from camserve_client.cli.options import (
    CamMethod,
    CamOptions,
    Colors,
    Images,
    Layer,
    ModelName,
    Npy,
    Overlay,
    Target,
    TopK,
    Version,
    model_of,
)
from camserve_client.cli.session import SENDING_S, SOME_FAILED, Session
from camserve_client.cli.tables import Column
from camserve_client.client import AsyncClient
from camserve_client.results import Item, JobInfo, JobStatus

app = typer.Typer(cls=Group, no_args_is_help=True, help="Many images in the background.")

# What a spreadsheet takes for the beginning of a formula.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")

JobId = Annotated[str, typer.Argument(help="The job's id.")]


@app.command()
def submit(
    ctx: typer.Context,
    images: Images,
    model: ModelName = None,
    model_version: Version = "stable",
    top_k: TopK = 5,
    cam: Annotated[bool, typer.Option("--cam", help="Make heatmaps, behind links.")] = False,
    ttl_hours: Annotated[int | None, typer.Option(min=1, max=720, help="How long results are kept.")] = None,
    callback_url: Annotated[str | None, typer.Option(help="Hears of the job's end.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object that is kept with the job.")] = None,
    method: CamMethod = "gradcam",
    layer: Layer = "auto",
    target: Target = None,
    colormap: Colors = "jet",
    overlay: Overlay = True,
    npy: Npy = False,
) -> None:
    """Create a job of up to 256 images and print its id; exit code 1 if empty files were left out."""
    session: Session = ctx.obj
    if not cam:
        heatmaps.only_with_cam(ctx)
    options = CamOptions(method, layer, target, colormap, overlay, npy)
    kept = _object(metadata)
    found = sources.of(session, images)

    async def created(client: AsyncClient) -> str:
        job = await client.submit(
            found.images,
            model=await model_of(client, model),
            version=model_version,
            top_k=top_k,
            cam=options.cam if cam else False,
            ttl_hours=ttl_hours,
            callback_url=callback_url,
            metadata=kept,
        )
        return job.id

    job_id = session.run(created, patience_s=SENDING_S)
    session.show({"job_id": job_id}, lambda: job_id)
    if found.empty:
        raise typer.Exit(SOME_FAILED)


@app.command()
def ls(
    ctx: typer.Context,
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs of this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 50,
) -> None:
    """List jobs, the newest first."""
    session: Session = ctx.obj

    async def listed(client: AsyncClient) -> list[JobInfo]:
        found: list[JobInfo] = []
        async for info in client.jobs(status=status, model=model):
            found.append(info)
            if len(found) == limit:
                break
        return found

    found = session.run(listed)
    if session.as_json:
        for info in found:
            session.line(info)
    else:
        session.out.print(_table(found))


@app.command()
def get(ctx: typer.Context, job_id: JobId) -> None:
    """Tell how a job is."""
    session: Session = ctx.obj
    info = session.run(lambda client: client.job(job_id).info())
    session.show(info, lambda: _facts(info))


@app.command()
def wait(
    ctx: typer.Context,
    job_id: JobId,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Seconds after which to give up.")] = None,
) -> None:
    """Wait until a job has ended; exit code 1 unless it succeeded whole."""
    session: Session = ctx.obj

    async def ended(client: AsyncClient) -> JobInfo:
        with session.err.status("waiting") as shown_status:

            def tell(info: JobInfo) -> None:
                counts = info.result_summary
                shown_status.update(f"{info.status}, {counts.succeeded + counts.failed} of {counts.items}")

            return await client.job(job_id).wait(timeout_s=timeout, on_info=tell)

    info = session.run(ended, patience_s=SENDING_S)
    session.show(info, lambda: _facts(info))
    if info.status != "succeeded" or info.result_summary.failed:
        raise typer.Exit(SOME_FAILED)


@app.command()
def cancel(ctx: typer.Context, job_id: JobId) -> None:
    """Cancel a job."""
    session: Session = ctx.obj
    info = session.run(lambda client: client.job(job_id).cancel())
    session.show(info, lambda: _facts(info))


@app.command()
def results(
    ctx: typer.Context,
    job_id: JobId,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV: one row for each image, with its first class.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="JSON lines: all that is known of each image.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write there instead.")] = None,
) -> None:
    """Print the results of a job, in the order of its images."""
    session: Session = ctx.obj
    if as_csv and as_jsonl:
        raise typer.BadParameter("--csv or --jsonl, not both")

    async def listed(client: AsyncClient) -> list[Item]:
        return [item async for item in client.job(job_id).results()]

    items = session.run(listed)
    if as_csv or as_jsonl or session.as_json or output:
        session.guarded(lambda: _write(items, output, as_csv=as_csv))
    else:
        session.out.print(shown.outcomes(map(shown.outcome, items)))


def _write(items: Iterable[Item], output: Path | None, *, as_csv: bool) -> None:
    with _file(output) as file:
        if as_csv:
            seen = shown.printable if file.isatty() else str
            rows = [{name: seen(_cell(text)) for name, text in shown.outcome(item).items()} for item in items]
            writer = csv.DictWriter(file, fieldnames=shown.COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(shown.line(item) + "\n" for item in items)


def _cell(text: str) -> str:
    """Returns a cell that a spreadsheet takes for text: ids and labels are what somebody else chose."""
    return f"'{text}" if text.startswith(_FORMULAS) else text


@contextmanager
def _file(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
    else:
        with output.open("w", newline="") as file:
            yield file


def _table(jobs: Iterable[JobInfo]) -> Any:
    rows = (
        (info.job_id, info.status, _counts(info), info.model, f"{info.submitted_at.astimezone():%m-%d %H:%M %Z}")
        for info in jobs
    )
    return shown.table((Column("job", "id"), "status", "images", "model", Column("submitted", "time", spare=1)), rows)


def _facts(info: JobInfo) -> Any:
    rows = (
        ("job", info.job_id),
        ("status", info.status),
        ("images", _counts(info)),
        ("model", f"{info.model}, version {info.model_version}"),
        ("submitted", info.submitted_at),
        ("begun", info.started_at),
        ("ended", info.completed_at),
        ("kept until", info.expires_at),
        ("metadata", info.metadata and shown.line(info.metadata)),
        ("error", info.error and str(info.error)),
    )
    return shown.table(("", ""), ((name, value) for name, value in rows if value is not None))


def _counts(info: JobInfo) -> str:
    counts = info.result_summary
    failed = f", {counts.failed} failed" if counts.failed else ""
    return f"{counts.succeeded + counts.failed} of {counts.items}{failed}"


def _object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        said = json_text.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"no JSON: {error}", param_hint="--metadata") from None
    if not isinstance(said, dict):
        raise typer.BadParameter("not a JSON object, as {...}", param_hint="--metadata")
    return said
