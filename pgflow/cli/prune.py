"""`pgflow prune`: removes workflows that ended long ago, at once."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import click

from pgflow.cli.database_options import audit_options, database_options, readable_errors
from pgflow.cli.durations import Duration
from pgflow.cli.filter_options import tag
from pgflow.client.filters import ENDED
from pgflow.client.sync.client import SyncClient
from pgflow.model.info import Pruned

_WHY = {"awaited": "may still be awaited", "busy": "are locked by somebody, or have gone on"}


@click.command()
@click.option(
    "--older-than", required=True, metavar="AGE", type=Duration(), help="How long ago they ended: 90m, 12h, 30d."
)
@click.option("--name", help="Only workflows of this name.")
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(ENDED),
    help="Only these; repeatable. Not given: those that completed or were cancelled.",
)
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only those with this tag; repeatable.")
@click.option("--queue", help="Only those that were in this queue.")
@click.option("--parent", "parent_id", type=click.UUID, help="Only children of this workflow.")
@click.option("--limit", type=click.IntRange(min=1), help="How many, at most.")
@click.option("--dry-run", is_flag=True, help="Remove nothing, say how many would be.")
@click.option("--yes", is_flag=True, help="Do not ask before.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
@database_options
@audit_options
def prune(
    older_than: timedelta,
    name: str | None,
    status: tuple[str, ...],
    tags: tuple[str, ...],
    queue: str | None,
    parent_id: UUID | None,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    dsn: str,
    schema: str,
    actor: str | None,
    reason: str | None,
) -> None:
    """Remove workflows that ended long ago, with their history, unless somebody may still await them.

    Example: pgflow prune --older-than 30d --name newsletter --dry-run
    """
    asked: dict[str, Any] = {
        "older_than": older_than,
        "name": name,
        "status": status or None,
        "tags": dict(map(tag, tags)) or None,
        "queue": queue,
        "parent_id": parent_id,
        "limit": limit,
        "reason": reason,
    }
    with readable_errors(), SyncClient(dsn, schema, connections=1, actor=actor) as client:
        expected: int | None = None
        if not yes and not dry_run:
            expected = client.prune(**asked, dry_run=True)
            if expected and not click.confirm(f"remove {expected} workflow{'s'[: expected != 1]} for good?", err=True):
                raise SystemExit(1)
        done = client.prune(**asked, dry_run=dry_run, progress=_bar(expected, dry_run))
    if as_json:
        click.echo(json.dumps({"removed": 0 if dry_run else int(done), "found": int(done), "kept": done.kept}))
        return
    click.echo(f"{'would remove' if dry_run else 'removed'}: {int(done)}")
    for why, count in done.kept.items():
        click.echo(f"stay, since they {_WHY[why]}: {count}", err=True)


def _bar(expected: int | None, dry_run: bool) -> Any:
    """What shows how far it has got, on a terminal; None: nothing does."""
    if not sys.stderr.isatty():
        return None
    bar: Any = click.progressbar(length=expected, label="counting" if dry_run else "removing", file=sys.stderr)

    def show(done: Pruned) -> None:
        if expected:
            bar.update(min(int(done), expected) - bar.pos)
        else:
            click.echo(f"\r{bar.label} {int(done)} ...", nl=False, err=True)

    return show
