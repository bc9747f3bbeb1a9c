"""`cam upload`: images that are stored once and used many times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from camserve_client.cli import shown, sources
from camserve_client.cli.session import SENDING_S, SOME_FAILED, Session
from camserve_client.cli.tables import Column
from camserve_client.client import AsyncClient
from camserve_client.contents import ImageSource
from camserve_client.errors import CamserveError
from camserve_client.progress import progress_bar
from camserve_client.results import Upload
from camserve_client.uploads import Progress

_COLUMNS = (
    Column("id", "id"),
    Column("image", "name"),
    Column("bytes", spare=1),
    Column("type", spare=2),
    Column("kept until", "time"),
)
_OF_THE_IMAGE = frozenset({400, 413, 415, 422})


def upload(
    ctx: typer.Context,
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns, or - for the input.")],
    resume: Annotated[str | None, typer.Option(help="Go on with the upload of this id, of a single image.")] = None,
) -> None:
    """Store images. A broken connection costs only what was on its way; an upload that ended can be resumed."""
    session: Session = ctx.obj
    found = sources.of(session, images)
    if resume and len(found.images) + len(found.empty) > 1:
        raise typer.BadParameter("only a single image can be resumed", param_hint="--resume")

    async def all_of(client: AsyncClient) -> int:
        failed = len(found.empty)
        with _told(session) as tell:
            for name, source in found.images.items():
                try:
                    tell(name, await _stored(session, client, name, source, resume))
                except CamserveError as error:
                    # What is wrong with one image is not wrong with the next.
                    if len(found.images) + len(found.empty) == 1 or error.status not in _OF_THE_IMAGE:
                        raise
                    failed += 1
                    session.say_error(error, name)
        return failed

    if session.run(all_of, patience_s=SENDING_S):
        raise typer.Exit(SOME_FAILED)


@contextmanager
def _told(session: Session) -> Iterator[Callable[[str, Upload], None]]:
    """Gives what tells of an upload: a line of JSON, or a row of a table at the end, whatever that end is."""
    if session.as_json:
        yield lambda _, stored: session.line(stored)
        return
    rows: list[tuple[object, ...]] = []
    try:
        yield lambda name, one: rows.append((one.storage_id, name, one.size_bytes, one.media_type, one.expires_at))
    finally:
        if rows:
            session.out.print(shown.table(_COLUMNS, rows))


async def _stored(session: Session, client: AsyncClient, name: str, source: ImageSource, resume: str | None) -> Upload:
    begun: list[str] = []

    with progress_bar(shown.printable(name), session.err) if session.err.is_terminal else nullcontext() as draw:

        def on_progress(made: Progress) -> None:
            if made.storage_id and not begun:
                begun.append(made.storage_id)
            if draw:
                draw(made)

        try:
            return await client.upload(source, resume=resume, on_progress=on_progress)
        except (CamserveError, asyncio.CancelledError) as error:
            if begun and (isinstance(error, asyncio.CancelledError) or error.retryable):
                again = shown.quoted(str(source) if isinstance(source, Path) else name)
                session.hint(f"To go on: cam upload {again} --resume {begun[0]}", resume=begun[0])
            raise
