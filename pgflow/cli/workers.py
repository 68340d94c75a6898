"""`pgflow workers`: which workers there are. (`pgflow worker list` would run the workflows of a module called list.)"""

from __future__ import annotations

from typing import Any

import click

from pgflow.cli import render
from pgflow.cli.database_options import database_options, readable_errors
from pgflow.cli.watch import watch_option, watched
from pgflow.client.sync.client import SyncClient


@click.command()
@database_options
@click.option("--queue", help="Only workers that serve this queue.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="How many, at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
@watch_option
def workers(dsn: str, schema: str, queue: str | None, limit: int, as_json: bool, watch: bool) -> None:
    """Show the workers, those of the newest build first: their build and queues, how many workflows they hold (of how
    many they have room for), and the age of their last heartbeat. Those that died stay until others have noticed it.

    Example: pgflow workers --queue orders --watch
    """
    if as_json and watch:
        raise click.UsageError("--json and --watch do not go together: one document is printed once")
    with readable_errors(), SyncClient(dsn, schema, connections=1) as client:

        def look() -> tuple[Any, bool]:
            found = client.workers(queue=queue, limit=limit + 1)
            shown = found[:limit]
            if as_json:
                click.echo(render.document(shown))
            else:
                render.workers(shown)
            if len(found) > limit:
                click.echo(f"There are more than {limit}; --limit shows more.", err=True)
            return [(one.id, one.held, one.alive) for one in shown], False

        if watch:
            watched(look)
        else:
            look()
