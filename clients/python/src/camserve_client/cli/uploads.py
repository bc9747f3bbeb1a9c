"""`cam upload`: images that are stored once and used many times."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from camserve_client.cli import shown, sources
from camserve_client.cli.session import Session
from camserve_client.client import AsyncClient
from camserve_client.contents import ImageSource
from camserve_client.errors import CamserveError
from camserve_client.progress import progress_bar
from camserve_client.results import Upload
from camserve_client.uploads import Progress


def upload(
    ctx: typer.Context,
    images: Annotated[list[str], typer.Argument(help="Files, folders or patterns, or - for the input.")],
    resume: Annotated[str | None, typer.Option(help="Go on with the upload of this id, of a single image.")] = None,
) -> None:
    """Store images. A broken connection costs only what was on its way; an upload that ended can be resumed."""
    session: Session = ctx.obj
    found = session.guarded(lambda: sources.named(images))
    if resume and len(found) > 1:
        raise typer.BadParameter("only a single image can be resumed", param_hint="--resume")

    async def all_of(client: AsyncClient) -> list[tuple[str, Upload]]:
        return [(name, await _stored(session, client, name, source, resume)) for name, source in found.items()]

    stored = session.run(all_of)
    if session.as_json:
        for _, one in stored:
            session.line(one)
    else:
        rows = ((one.storage_id, name, one.size_bytes, one.media_type, one.expires_at) for name, one in stored)
        session.out.print(shown.table(("id", "image", "bytes", "type", "kept until"), rows))


async def _stored(session: Session, client: AsyncClient, name: str, source: ImageSource, resume: str | None) -> Upload:
    begun: list[str] = []

    with progress_bar(name, session.err) if session.err.is_terminal else nullcontext() as draw:

        def on_progress(made: Progress) -> None:
            if made.storage_id and not begun:
                begun.append(made.storage_id)
            if draw:
                draw(made)

        try:
            return await client.upload(source, resume=resume, on_progress=on_progress)
        except CamserveError as error:
            if begun and error.retryable:
                session.err.print(f"To go on: cam upload {name} --resume {begun[0]}", markup=False, highlight=False)
            raise
