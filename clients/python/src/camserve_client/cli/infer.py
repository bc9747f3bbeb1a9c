"""`cam infer`: one image with its heatmap, or many as a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from camserve_client.cli import heatmaps, picture, shown, sources
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
from camserve_client.client import AsyncClient
from camserve_client.contents import ImageSource
from camserve_client.options import Cam
from camserve_client.progress import progress_bar
from camserve_client.results import InferResult, Item

_SHOWN_BYTES = 1 << 20
_LIVE_ROWS = 15


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every image, and where heatmaps go; without a place none are made."""

    model: str | None
    version: str
    top_k: int
    place: Path | None
    options: CamOptions

    @property
    def cam(self) -> Cam | bool:
        """The heatmap that is asked for."""
        return self.options.cam if self.place else False


def infer(
    ctx: typer.Context,
    images: Images,
    model: ModelName = None,
    model_version: Version = "stable",
    top_k: TopK = 5,
    cam: Annotated[
        Path | None,
        typer.Option(help="Write the heatmap to this file, .png or .npy; into this folder, of several images."),
    ] = None,
    show: Annotated[bool, typer.Option(help="Show the heatmap of one image.")] = True,
    method: CamMethod = "gradcam",
    layer: Layer = "auto",
    target: Target = None,
    colormap: Colors = "jet",
    overlay: Overlay = True,
    npy: Npy = False,
) -> None:
    """Tell what is on images.

    One image is told of with its classes, and with --cam its heatmap is written and shown: in terminals that can, in
    the system's viewer otherwise. Several are a batch, told of as they are finished, and so is what a folder or a
    pattern holds.
    """
    if cam == Path("-"):
        raise typer.BadParameter("name a file: heatmaps are not written to standard output", param_hint="--cam")
    if cam is None:
        heatmaps.only_with_cam(ctx)
    session: Session = ctx.obj
    found = sources.of(session, images)
    options = CamOptions(method, layer, target, colormap, overlay, npy)
    if len(images) > 1 or sources.may_be_many(images[0]):
        place = heatmaps.folder_for(cam, found.images, npy=npy) if cam else None
        asked = Asked(model, model_version, top_k, place, options)
        failed = session.run(lambda client: _many(session, client, found, asked), patience_s=SENDING_S)
        raise typer.Exit(SOME_FAILED if failed else 0)
    (name, source), *_ = found.images.items()
    place = heatmaps.file_for(cam, name, source, npy=npy) if cam else None
    if place and place.suffix.lower() == ".npy":
        options = replace(options, npy=True)
    asked = Asked(model, model_version, top_k, place, options)
    answer = session.run(lambda client: _one(session, client, name, source, asked), patience_s=SENDING_S)
    session.show(answer, lambda: shown.classes(answer))
    if place is None or answer.heatmap is None:
        return
    session.guarded(lambda: answer.heatmap.save(place) if answer.heatmap else None)
    if not session.as_json:
        session.out.print(
            shown.printable(f"heatmap of {answer.heatmap.target} in {place}"),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if show:
            picture.show(answer.heatmap.to_pil(), place, session.out)


async def _one(session: Session, client: AsyncClient, name: str, source: ImageSource, asked: Asked) -> InferResult:
    large = isinstance(source, Path) and source.exists() and source.stat().st_size > _SHOWN_BYTES
    with (
        progress_bar(shown.printable(name), session.err)
        if large and session.err.is_terminal
        else nullcontext() as on_progress
    ):
        return await client.infer(
            source,
            model=await model_of(client, asked.model),
            version=asked.version,
            top_k=asked.top_k,
            cam=asked.cam,
            on_progress=on_progress,
        )


async def _many(session: Session, client: AsyncClient, found: sources.Found, asked: Asked) -> int:
    """Tells of every image as it is finished, and returns how many failed."""
    folder = asked.place
    taken: set[Path] = set()
    failed = len(found.empty)
    with _told(session, failed + len(found.images)) as tell:
        for name in found.empty:
            tell(Item(name, "failed", error=sources.empty_image()), None)
        items = client.infer_batch(
            found.images,
            model=await model_of(client, asked.model),
            version=asked.version,
            top_k=asked.top_k,
            cam=asked.cam,
        )
        async with aclosing(items):
            async for item in items:
                failed += item.error is not None
                file = None
                if folder and item.result and item.result.heatmap:
                    file = heatmaps.folder_file(folder, item.id, f".{item.result.heatmap.format}", taken)
                    item.result.heatmap.save(file)
                tell(item, file)
    return failed


@contextmanager
def _told(session: Session, total: int) -> Iterator[Callable[[Item, Path | None], None]]:
    """Gives what tells of an image, and of the file of its heatmap.

    That is a line of JSON, a row of a table that grows, or a table at the end.
    """
    if session.as_json:
        yield lambda item, file: session.line(shown.plain(item) | ({"heatmap_file": str(file)} if file else {}))
        return
    done: list[dict[str, str]] = []
    with Live(console=session.out, transient=True) if session.out.is_terminal else nullcontext() as live:

        def tell(item: Item, file: Path | None) -> None:
            done.append(shown.outcome(item) | {"file": str(file or "")})
            if live:
                live.update(Group(shown.outcomes(done[-_LIVE_ROWS:]), Text(f"{len(done)} of {total}")))

        try:
            yield tell
        finally:
            # Also where the batch ends early: what was answered is worth having.
            if live:
                live.stop()
            failed = sum(bool(row["error"]) for row in done)
            whole = shown.counted(total, "image")
            count = whole if len(done) == total else f"{len(done)} of {whole}"
            if done:
                session.out.print(shown.outcomes(done), Text(f"{count}, {failed} failed"))
