"""`cam webhooks`: events about jobs, sent to your own servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, get_args

import typer

from camserve_client.cli import shown
from camserve_client.cli.commands import Group
from camserve_client.cli.session import SENDING_S, Session
from camserve_client.cli.tables import Column
from camserve_client.client import AsyncClient
from camserve_client.results import Delivery, DeliveryStatus, Webhook
from camserve_client.webhook_calls import Event

app = typer.Typer(cls=Group, no_args_is_help=True, help="Events about jobs, sent to your own servers.")

_EVENTS = f"Send this event: {', '.join(get_args(Event))}. May be said again; default: all."
WebhookId = Annotated[str, typer.Argument(help="The webhook's id.")]


@app.command()
def ls(ctx: typer.Context) -> None:
    """List webhooks, the oldest first."""
    session: Session = ctx.obj

    async def listed(client: AsyncClient) -> tuple[Webhook, ...]:
        return await client.webhooks.list()

    found = session.run(listed)
    if session.as_json:
        for webhook in found:
            session.line(webhook)
    else:
        session.out.print(_table(found))


@app.command()
def create(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="Where events go: https.")],
    event: Annotated[list[str] | None, typer.Option(help=_EVENTS)] = None,
) -> None:
    """Register a webhook and print its secret, this once."""
    session: Session = ctx.obj

    events: Any = event or ()

    async def created(client: AsyncClient) -> Webhook:
        return await client.webhooks.create(url, events=events)

    webhook = session.run(created)
    session.show(webhook, lambda: f"{webhook.webhook_id}\nsecret {webhook.secret}")


@app.command()
def rm(ctx: typer.Context, webhook_id: WebhookId) -> None:
    """Remove a webhook; what is not yet sent never is."""
    session: Session = ctx.obj

    async def removed(client: AsyncClient) -> None:
        await client.webhooks.delete(webhook_id)

    session.run(removed)
    session.show({"removed": webhook_id}, lambda: f"{webhook_id} is removed.")


@app.command()
def test(ctx: typer.Context, webhook_id: WebhookId) -> None:
    """Send the event `webhook.test`."""
    session: Session = ctx.obj

    async def sent(client: AsyncClient) -> Delivery:
        return await client.webhooks.test(webhook_id)

    delivery = session.run(sent, patience_s=SENDING_S)
    session.show(delivery, lambda: _deliveries([delivery]))


@app.command()
def rotate(ctx: typer.Context, webhook_id: WebhookId) -> None:
    """Print a new secret; events carry the signatures of both for 24 hours."""
    session: Session = ctx.obj

    async def rotated(client: AsyncClient) -> Webhook:
        return await client.webhooks.rotate(webhook_id)

    webhook = session.run(rotated)
    session.show(webhook, lambda: f"secret {webhook.secret}")


@app.command()
def deliveries(
    ctx: typer.Context,
    webhook_id: WebhookId,
    status: Annotated[DeliveryStatus | None, typer.Option(help="Only those of this state.")] = None,
) -> None:
    """List what was sent in the last 7 days, the newest first."""
    session: Session = ctx.obj

    async def listed(client: AsyncClient) -> list[Delivery]:
        return [one async for one in client.webhooks.deliveries(webhook_id, status=status)]

    found = session.run(listed)
    if session.as_json:
        for delivery in found:
            session.line(delivery)
    else:
        session.out.print(_deliveries(found))


@app.command()
def redeliver(
    ctx: typer.Context, webhook_id: WebhookId, event_id: Annotated[str, typer.Argument(help="The event's id.")]
) -> None:
    """Send an event again."""
    session: Session = ctx.obj

    async def sent(client: AsyncClient) -> Delivery:
        return await client.webhooks.redeliver(webhook_id, event_id)

    delivery = session.run(sent, patience_s=SENDING_S)
    session.show(delivery, lambda: _deliveries([delivery]))


@app.command()
def secret(ctx: typer.Context) -> None:
    """Print the secret that signs events to the callback URLs of jobs."""
    session: Session = ctx.obj

    async def asked(client: AsyncClient) -> str:
        return await client.webhooks.callback_secret()

    found = session.run(asked)
    session.show({"secret": found}, lambda: found)


def _table(webhooks: Iterable[Webhook]) -> Any:
    rows = (
        (one.webhook_id, one.url, ", ".join(one.events) or "all", one.created_at, one.disabled_at) for one in webhooks
    )
    columns = (
        Column("webhook", "id"),
        Column("url", "name"),
        "events",
        Column("made", "time", spare=2),
        Column("disabled", "time", spare=1),
    )
    return shown.table(columns, rows)


def _deliveries(found: Iterable[Delivery]) -> Any:
    rows = (
        (one.event_id, one.event, one.job_id, one.status, one.attempts, one.last_status, one.next_attempt_at)
        for one in found
    )
    columns = (
        Column("event", "id"),
        "kind",
        Column("job", "id", spare=2),
        "status",
        Column("attempts", spare=4),
        Column("last answer", spare=1),
        Column("next attempt", "time", spare=3),
    )
    return shown.table(columns, rows)
