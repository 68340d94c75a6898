"""`pgflow dev [MODULE...]`: an embedded PostgreSQL, migrated, with a worker on it, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import click

from pgflow.cli.database_options import readable_errors, schema_option
from pgflow.cli.logs import configure
from pgflow.cli.run_worker import leave, lifespan_of, lifespan_option, run_through, serve, workflows_of
from pgflow.embedded import Postgres
from pgflow.store.schema.migrations import migrate
from pgflow.worker.worker import Worker


@click.command()
@click.argument("targets", nargs=-1, metavar="[MODULE[:NAME]]...")
@schema_option
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".pgflow"),
    show_default=True,
    help="Where the server keeps its data.",
)
@lifespan_option
def dev(targets: tuple[str, ...], schema: str, directory: Path, lifespan: str | None) -> None:
    """Run an embedded PostgreSQL, migrated, and the workflows of MODULE on it, until Ctrl-C.

    Without MODULE it is the server alone. The line that it prints first names the server to other programs.

    Example: pgflow dev shop.workflows
    """
    code = 0
    workflows, shared = workflows_of(targets), lifespan_of(lifespan)
    with readable_errors():
        with Postgres(directory) as server:
            migrate(server.dsn, schema)
            os.environ["PGFLOW_DATABASE_URL"] = server.dsn
            click.echo(f"export PGFLOW_DATABASE_URL={shlex.quote(server.dsn)}")
            sys.stdout.flush()
            if workflows:
                configure()
                code = run_through(serve(Worker(server.dsn, workflows=workflows, schema=schema, lifespan=shared)))
            else:
                _wait()
    leave(code)


def _wait() -> None:
    """Until Ctrl-C or SIGTERM."""
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    signal.sigwait(ends)
