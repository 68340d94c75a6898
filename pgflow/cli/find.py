"""`pgflow workflow list | count`: which workflows there are."""

from __future__ import annotations

import json
from typing import Any

import click

from pgflow.cli import render
from pgflow.cli.database_options import database_options, readable_errors
from pgflow.cli.filter_options import filter_options, filters_of
from pgflow.cli.watch import watch_option, watched
from pgflow.client.sync.client import SyncClient
from pgflow.model.info import Page


@click.command("list")
@filter_options
@click.option("--after", "--before", "after", metavar="CURSOR", help="Continue a list after this cursor or id.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="How many, at most.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON document, for programs; the cursor, if any, on standard error."
)
@watch_option
@database_options
def list_(after: str | None, limit: int, as_json: bool, watch: bool, dsn: str, schema: str, **options: Any) -> None:
    """List workflows, newest first. Times are UTC.

    However many workflows there are, a page takes a bounded time. If it has fewer than there are, it says so, and the
    cursor goes on.

    Example: pgflow workflow list --status failed,cancelled --ended-after 1h --tag customer=7
    """
    asked = filters_of(**options)
    with readable_errors(), SyncClient(dsn, schema, connections=1) as client:

        def look() -> tuple[object, bool]:
            found = client.list(**asked, after=after, limit=limit)
            if as_json:
                click.echo(render.document(found))
            else:
                render.workflows(found)
            _go_on(found, as_json)
            return found, False

        watched(look) if watch else look()


@click.command()
@filter_options
@click.option("--after", metavar="CURSOR", help="Count on after this cursor.")
@click.option("--limit", type=click.IntRange(min=1), default=10_000, show_default=True, help="Where counting ends.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
@database_options
def count(after: str | None, limit: int, as_json: bool, dsn: str, schema: str, **options: Any) -> None:
    """Count workflows, up to a limit.

    Prints the number, and "or more" if the limit was reached, or if so many workflows had to be looked at that counting
    ended before.

    Example: pgflow workflow count --name checkout --status failed
    """
    with readable_errors(), SyncClient(dsn, schema, connections=1) as client:
        found = client.count(**filters_of(**options), after=after, limit=limit)
    if as_json:
        click.echo(json.dumps({"count": int(found), "more": found.more, "cursor": found.cursor}))
        return
    click.echo(f"{found}{' or more' if found.more else ''}")
    if found.more:
        click.echo(f"Count on with --after {found.cursor}", err=True)


def _go_on(found: Page, as_json: bool) -> None:
    if as_json and found.cursor is not None:
        click.echo(json.dumps({"cursor": found.cursor, "short": found.short}), err=True)
    elif not as_json and found.short:
        click.echo(f"There may be more among those not looked at yet; go on with --after {found.cursor}")
    elif not as_json and found.cursor is not None:
        click.echo(f"The first {len(found)}; go on with --after {found.cursor}")
