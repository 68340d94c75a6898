"""`pgflow db upgrade | downgrade | current | sql | roles`: the schema of a database."""

from __future__ import annotations

import click

from pgflow.cli.database_options import database_options, readable_errors, schema_option
from pgflow.cli.db_roles import roles
from pgflow.store.schema import migrations

patience_option = click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to keep trying while other sessions have the tables locked.",
)


@click.group()
def db() -> None:
    """Create and migrate the schema."""


db.add_command(roles)


@db.command()
@database_options
@click.option("--revision", default="head", show_default=True, help="How far to go.")
@patience_option
def upgrade(dsn: str, schema: str, revision: str, patience: float) -> None:
    """Create the schema or bring it up to date. Running two at once is safe.

    Example: pgflow db upgrade --dsn postgresql://owner@db/shop
    """
    with readable_errors():
        before = migrations.current(dsn, schema)
        migrations.upgrade(dsn, schema, revision, patience=patience)
        after = migrations.current(dsn, schema)
    click.echo(
        f'schema "{schema}" is at {after}' + (" already" if before == after else f", it was at {before or 'nothing'}")
    )


@db.command()
@database_options
@click.option("--revision", default="-1", show_default=True, help="How far to go; `base` removes everything.")
@click.confirmation_option(prompt="This may delete workflows and their history. Continue?")
@patience_option
def downgrade(dsn: str, schema: str, revision: str, patience: float) -> None:
    """Undo migrations.

    Example: pgflow db downgrade --revision 0015
    """
    with readable_errors():
        migrations.downgrade(dsn, schema, revision, patience=patience)
        after = migrations.current(dsn, schema)
    click.echo(f'schema "{schema}" is at {after or "nothing"}')


@db.command()
@database_options
def current(dsn: str, schema: str) -> None:
    """Show which revision the schema is at, and which is the newest. Exits with 1 when they differ.

    Example: pgflow db current || pgflow db upgrade
    """
    with readable_errors():
        found, head = migrations.current(dsn, schema), migrations.newest()
    click.echo(f'schema "{schema}" is at {found or "nothing"}; the newest revision is {head}')
    if found != head:
        raise SystemExit(1)


@db.command()
@schema_option
@click.option("--revision", default="head", show_default=True, help="How far to go; a range is `0001:head`.")
def sql(schema: str, revision: str) -> None:
    """Print the SQL of an upgrade, for a DBA to read and run.

    Example: pgflow db sql --revision 0015:head > upgrade.sql
    """
    with readable_errors():
        click.echo(migrations.offline_sql(schema, revision))
