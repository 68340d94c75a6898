"""`pgflow audit [ID]`: what operators did, to one workflow or to any."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import click

from pgflow.cli import render
from pgflow.cli.completion import WORKFLOW_ID
from pgflow.cli.database_options import database_options, readable_errors
from pgflow.client.filters import OPERATIONS
from pgflow.client.sync.client import SyncClient


@click.command()
@click.argument("id", type=WORKFLOW_ID, required=False)
@database_options
@click.option("--actor", help="Only what this actor did, or this database role.")
@click.option("--operation", type=click.Choice(OPERATIONS), help="Only this operation.")
@click.option(
    "--since",
    metavar="MOMENT",
    help="Only what was done since then: 2026-11-30, or 2026-11-30T22:15; UTC unless it has an offset.",
)
@click.option("--after", type=click.IntRange(min=0), help="Continue a list after this entry, given by its number.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many, at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def audit(
    id: UUID | None,
    dsn: str,
    schema: str,
    actor: str | None,
    operation: str | None,
    since: str | None,
    after: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what operators did to the workflow ID, or to any workflow, newest first. Times are UTC.

    Example: pgflow audit --actor kim --operation retry --since 2026-11-30
    """
    moment = None if since is None else _moment(since)
    with readable_errors(), SyncClient(dsn, schema, connections=1) as client:
        found = client.audit(id, actor=actor, operation=operation, since=moment, limit=limit + 1, after=after)
    shown, more = found[:limit], len(found) > limit
    if as_json:
        click.echo(render.document(shown))
    else:
        render.audit(shown)
    if more:
        click.echo(f"There are more than {limit}; go on with --after {shown[-1].id}.", err=True)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r}: expected a day or a moment, such as 2026-11-30T22:15", param_hint="--since"
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
