"""Bringing a database's schema up to date with this code: what `pgflow.migrate` and `pgflow db` do.

The migrations are alembic's. From a checkout they lie in `alembic/`, in an installed package in `pgflow/migrations`.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pgflow.errors import PgflowError
from pgflow.store.connections import check_dsn

if TYPE_CHECKING:
    from alembic.config import Config

_one_at_a_time = threading.Lock()
"""Alembic keeps what it is doing in globals of the process."""

_PACKAGE = Path(__file__).resolve().parent.parent


class MigrationFailed(PgflowError):
    """The schema could not be changed; nothing was."""


def migrate(dsn: str, schema: str = "pgflow") -> None:
    """Create the schema, or bring it up to date. Two at once are safe: one waits for the other.

    Parameters:
        dsn: the database, as a postgresql:// URL or key=value words.
        schema: the name of the schema.

    Raises:
        ValueError: the DSN is none, or the schema's name cannot be one.
        MigrationFailed: a migration failed; nothing was changed.
        PgflowError: the server is older than PostgreSQL 15.
        psycopg.OperationalError: the database cannot be reached.

    Example:
        pgflow.migrate("postgresql:///app")
    """
    upgrade(dsn, schema)


def upgrade(dsn: str, schema: str = "pgflow", revision: str = "head") -> None:
    """Migrate up to a revision."""
    check_dsn(dsn)
    _run(_config(schema, dsn), "upgrade", revision)


def downgrade(dsn: str, schema: str = "pgflow", revision: str = "-1") -> None:
    """Migrate down to a revision: "-1" is one step, "base" removes everything but the empty schema."""
    check_dsn(dsn)
    _run(_config(schema, dsn), "downgrade", revision)


def offline_sql(schema: str = "pgflow", revision: str = "head") -> str:
    """The SQL of an upgrade, for a DBA to read and run. `revision` may be a range: "0001:head".

    Example:
        print(offline_sql("pgflow"))
    """
    config = _config(schema, None)
    written = io.StringIO()
    config.output_buffer = written
    _run(config, "upgrade", revision, sql=True)
    return written.getvalue()


def current(dsn: str, schema: str = "pgflow") -> str | None:
    """The revision that the database's schema is at; None when it was never migrated."""
    check_dsn(dsn)
    with psycopg.connect(dsn) as connection:
        table = psycopg.sql.Identifier(schema, "alembic_version")
        there = connection.execute(
            "SELECT to_regclass(%s)", [table.as_string(connection)]
        ).fetchone()
        if there is None or there[0] is None:
            return None
        row = connection.execute(
            psycopg.sql.SQL("SELECT version_num FROM {}").format(table)
        ).fetchone()
        return None if row is None else str(row[0])


def newest() -> str:
    """The newest revision that this code knows."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config("pgflow", None)).get_current_head()
    assert head is not None
    return head


def _config(schema: str, dsn: str | None) -> Config:
    if not schema or len(schema.encode()) > 63 or any(sign in schema for sign in "\0%{}:\\"):
        raise ValueError(
            f"schema={schema!r}: expected a name of 1 to 63 bytes without percent signs, braces, colons and backslashes"
        )
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(schema=schema, dsn=dsn)
    return config


def _location() -> Path:
    shipped = _PACKAGE / "migrations"
    checkout = _PACKAGE.parent / "alembic"
    for found in (shipped, checkout):
        if (found / "env.py").is_file():
            return found
    raise MigrationFailed(
        f"no migrations at {shipped} nor at {checkout}: the installation is incomplete, install pgflow again"
    )


def _run(config: Config, what: str, revision: str, sql: bool = False) -> None:
    # Alembic is imported when it is needed: workers and clients start a third of a second sooner without it.
    from alembic import command
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import DBAPIError

    try:
        with _one_at_a_time:
            getattr(command, what)(config, revision, sql=sql)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.OperationalError):
            raise error.orig from None
        raise MigrationFailed(
            f"{what} to {revision!r} failed, and nothing was changed: {str(error.orig).strip()}"
        ) from error
    except CommandError as error:
        raise MigrationFailed(
            f"{what} to {revision!r} is not possible: {error}. Expected a revision that this code knows "
            "(the newest is `head`); a schema that newer code made is changed back by that code."
        ) from error
