"""Runs the migrations in one transaction, for a schema of any name, one upgrade at a time."""

from __future__ import annotations

import logging.config
import os

import psycopg
from alembic import context
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from pgflow.store.compatibility import check_server
from pgflow.store.schema import make_metadata

config = context.config
given = context.get_x_argument(as_dictionary=True)
schema = (
    config.attributes.get("schema")
    or given.get("schema")
    or os.environ.get("PGFLOW_SCHEMA")
    or "pgflow"
)
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
        version_table_schema=schema,
        # For `alembic check` and `alembic revision --autogenerate`: this schema and no other.
        include_schemas=True,
        include_name=lambda name, kind, parents: kind != "schema" or name == schema,
        output_buffer=config.output_buffer,
    )
    with context.begin_transaction():
        if connection is None:
            context.execute(CreateSchema(schema, if_not_exists=True))
        context.run_migrations()


def connect() -> psycopg.Connection[tuple[object, ...]]:
    """A connection to the database that was named; any DSN that libpq understands."""
    dsn = config.attributes.get("dsn")
    if dsn is None:
        dsn = given.get("dsn") or os.environ.get("PGFLOW_DATABASE_URL")
    if dsn is None:
        raise SystemExit(
            "No database was named. Set PGFLOW_DATABASE_URL, or pass `-x dsn=postgresql://...`."
        )
    made = psycopg.connect(dsn)
    check_server(made.info.server_version)
    return made


if context.is_offline_mode():
    migrate(None)
else:
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    with engine.begin() as connection:
        # Two upgrades at once: the second waits here, and then finds that there is nothing to do. Where there are no
        # advisory locks, the second fails and changes nothing.
        may_lock = "SELECT has_function_privilege(to_regprocedure('pg_advisory_xact_lock(bigint)')::oid, 'EXECUTE')"
        if connection.scalar(text(may_lock)):
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))"),
                {"what": f"pgflow migration of {schema}"},
            )
        connection.execute(CreateSchema(schema, if_not_exists=True))
        migrate(connection)
    engine.dispose()
