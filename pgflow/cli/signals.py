"""`pgflow signal list --dead | redeliver | drop`: signals that no workflow could read.
`pgflow workflow signal` sends one.
"""

from __future__ import annotations

import json
from uuid import UUID

import click

from pgflow.cli import render
from pgflow.cli.completion import WORKFLOW_ID
from pgflow.cli.database_options import audit_options, database_options, readable_errors
from pgflow.client.sync.client import SyncClient

_id = click.argument("id", type=click.UUID)


@click.group()
def signal() -> None:
    """Show signals whose bodies do not fit their types, deliver them again, or drop them. Times are UTC."""


@signal.command("list")
@database_options
@click.option("--dead", is_flag=True, required=True, help="Those that were set aside; there is no list of others.")
@click.option("--workflow", "workflow_id", type=WORKFLOW_ID, help="Only those that were sent to this workflow.")
@click.option("--name", help="Only those of this type.")
@click.option("--after", type=click.UUID, help="Continue a list after this id.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many, at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def list_(
    dsn: str,
    schema: str,
    dead: bool,
    workflow_id: UUID | None,
    name: str | None,
    after: UUID | None,
    limit: int,
    as_json: bool,
) -> None:
    """List signals that were set aside.

    Example: pgflow signal list --dead --name deposit
    """
    with readable_errors(), SyncClient(dsn, schema, connections=1) as client:
        found = client.dead_signals(workflow_id, name, limit + 1, after=after)
    shown, more = found[:limit], len(found) > limit
    if as_json:
        click.echo(render.document(shown))
    else:
        render.dead_signals(shown)
    if more:
        click.echo(f"There are more than {limit}; go on with --after {shown[-1].id}.", err=True)


@signal.command()
@_id
@click.argument("body", required=False)
@database_options
@audit_options
def redeliver(id: UUID, body: str | None, dsn: str, schema: str, actor: str | None, reason: str | None) -> None:
    """Deliver the signal ID again, at the end of the mailbox; with BODY, a JSON object of its fields, if
    that is given.

    Example: pgflow signal redeliver 0198c0de-0000-7000-8000-000000000000 '{"cents": 700}'
    """
    fields = None
    if body is not None:
        try:
            fields = json.loads(body)
        except ValueError as error:
            raise click.BadParameter(f"{body!r} is not JSON: {error}", param_hint="BODY") from error
        if not isinstance(fields, dict):
            raise click.BadParameter(f"{body!r}: expected a JSON object", param_hint="BODY")
    with readable_errors(), SyncClient(dsn, schema, connections=1, actor=actor) as client:
        client.redeliver(id, fields, reason=reason)
    click.echo("it is on its way")


@signal.command()
@_id
@database_options
@audit_options
def drop(id: UUID, dsn: str, schema: str, actor: str | None, reason: str | None) -> None:
    """Drop the signal ID for good.

    Example: pgflow signal drop 0198c0de-0000-7000-8000-000000000000 --reason "sent by a test"
    """
    with readable_errors(), SyncClient(dsn, schema, connections=1, actor=actor) as client:
        client.drop(id, reason=reason)
    click.echo("it is dropped")
