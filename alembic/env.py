"""Runs the migrations in one transaction, for a schema of any name, one upgrade at a time."""

from __future__ import annotations

import logging.config
import os
from collections.abc import Collection, Mapping
from typing import Any

import psycopg
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from pgflow.store.database.connections import connect_to_migrate
from pgflow.store.schema import migration_run, roles, version_table
from pgflow.store.schema.compatibility import check_server
from pgflow.store.schema.tables import make_metadata

config = context.config
given = context.get_x_argument(as_dictionary=True)
schema = config.attributes.get("schema") or given.get("schema") or os.environ.get("PGFLOW_SCHEMA") or "pgflow"
if config.config_file_name is not None:
    logging.config.fileConfig(config.config_file_name, disable_existing_loggers=False)


def migrate(connection: Connection | None) -> None:
    """Configure alembic and run what was asked for."""
    context.configure(
        connection=connection,
        dialect_name=None if connection is not None else "postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=connection is None,
        target_metadata=make_metadata(schema),
        version_table=version_table.NAME,
        version_table_schema=schema,
        # For `alembic check` and `alembic revision --autogenerate`: this schema and no other.
        include_schemas=True,
        include_name=lambda name, kind, parents: kind != "schema" or name == schema,
        output_buffer=config.output_buffer,
        on_version_apply=identify,
    )
    with context.begin_transaction():
        if connection is None:
            begin_script()
            context.run_migrations()
            return
        identify_row(connection)
        raw = connection.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        before = version_table.look(raw, schema).revision
        context.run_migrations()
        if version_table.look(raw, schema).revision not in (before, None):
            roles.renew(raw, schema)


def begin_script() -> None:
    """Begin a script for a DBA, who may have it from any revision on."""
    start = context.get_starting_revision_argument()
    if start in (None, "base"):
        context.execute(CreateSchema(schema, if_not_exists=True))
        return
    context.execute(version_table.adopting(schema).replace(":", "\\:"))
    if start in WITHOUT_KEY:
        context.execute(version_table.identity(schema).replace(":", "\\:"))


WITHOUT_KEY = ("0001", "0002", "0003")
"""Revisions whose `schema_info` has no key."""


def identify(ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]) -> None:
    """After each step: let the next one change the row of `schema_info`, whatever is published."""
    if ctx.connection is not None and not ctx.as_sql:
        identify_row(ctx.connection)
    elif step.up_revision_id in WITHOUT_KEY[:1] and step.is_upgrade:
        context.execute(version_table.identity(schema).replace(":", "\\:"))


def identify_row(connection: Connection) -> None:
    """Let the row of a `schema_info` without a key be changed under a publication of all tables."""
    driver = connection.connection.driver_connection
    assert driver is not None
    if version_table.lacks_identity(driver, schema):
        connection.exec_driver_sql(version_table.identity(schema))


def connect() -> psycopg.Connection[tuple[object, ...]]:
    """A connection to the database that was named; any DSN that libpq understands."""
    dsn = config.attributes.get("dsn")
    if dsn is None:
        dsn = given.get("dsn") or os.environ.get("PGFLOW_DATABASE_URL")
    if dsn is None:
        raise SystemExit("No database was named. Set PGFLOW_DATABASE_URL, or pass `-x dsn=postgresql://...`.")
    made = connect_to_migrate(dsn)
    check_server(made.info.server_version)
    return made


if context.is_offline_mode():
    migrate(None)
else:
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    patience = config.attributes.get("patience", migration_run.PATIENCE)
    migration_run.run(engine, schema, migrate, patience)
    migration_run.build_missing(engine, schema, make_metadata(schema), context.get_head_revision(), patience)
    engine.dispose()
