"""`pgflow queue list`: what waits in each queue, and who serves it."""

from __future__ import annotations

import click

from pgflow.cli import render
from pgflow.cli.database_options import database_options, readable_errors
from pgflow.cli.watch import watch_option, watched
from pgflow.client.sync.client import SyncClient


@click.group()
def queue() -> None:
    """Show what waits in queues. Times are UTC."""


@queue.command("list")
@database_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
@watch_option
def list_(dsn: str, schema: str, as_json: bool, watch: bool) -> None:
    """List the queues that workers serve or that something waits in, and what is due next in each.

    Example: pgflow queue list --watch
    """
    with readable_errors(), SyncClient(dsn, schema, connections=1) as client:

        def look() -> tuple[object, bool]:
            found = client.queues.list()
            if as_json:
                click.echo(render.document(found))
            else:
                render.queues(found)
            return found, False

        watched(look) if watch else look()
