"""Bringing a database's schema up to date with this code: what `pgflow.migrate` and `pgflow db` do.

The migrations are alembic's. In a checkout they are in `alembic/`, in an installed package in `pgflow/migrations`.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from pgflow import forking
from pgflow.errors import MigrationFailed
from pgflow.store.database.connections import check_dsn, connect_to_migrate
from pgflow.store.schema import version_table

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["MigrationFailed", "current", "downgrade", "migrate", "newest", "offline_sql", "upgrade"]

_log = logging.getLogger("pgflow.store")

_one_at_a_time = threading.Lock()
"""Held while alembic works: it keeps its state in globals of the process."""


def _begin_anew() -> None:
    """In a forked child: the thread that held the lock is the parent's."""
    global _one_at_a_time
    _one_at_a_time = threading.Lock()


forking.at_fork(_begin_anew)

_PACKAGE = Path(__file__).resolve().parents[2]


def migrate(dsn: str, schema: str = "pgflow", *, patience: float | None = None) -> None:
    """Create the schema, or bring it up to date. Two at once are safe: one waits for the other.

    It may be called within a migration of the application's own alembic; it works on a connection of its own, and
    commits by itself.

    Args:
        dsn: The database, as a postgresql:// URL or key=value words.
        schema: The schema's name. It may exist already, such as `public`, if nothing in it has a name that pgflow
            needs.
        patience: Seconds to keep trying while others hold its tables, 60 if not given.

    Raises:
        ValueError: The DSN is none, or the schema's name cannot be one.
        MigrationFailed: A migration failed, or the schema is somebody else's; nothing was changed.
        PgflowError: The server is older than PostgreSQL 15.
        psycopg.OperationalError: The database cannot be reached.

    Example:
        pgflow.migrate("postgresql:///app")
    """
    upgrade(dsn, schema, patience=patience)


def upgrade(dsn: str, schema: str = "pgflow", revision: str = "head", *, patience: float | None = None) -> None:
    """Migrate up to a revision. Parameters and errors are those of `migrate`."""
    check_dsn(dsn)
    _run(_config(schema, dsn, patience), "upgrade", revision)
    _log.info('the schema "%s" is at revision %s', schema, current(dsn, schema))


def downgrade(dsn: str, schema: str = "pgflow", revision: str = "-1", *, patience: float | None = None) -> None:
    """Migrate down to a revision: "-1" is one step, "base" removes everything but the empty schema."""
    check_dsn(dsn)
    _run(_config(schema, dsn, patience), "downgrade", revision)
    _log.info('the schema "%s" is at revision %s', schema, current(dsn, schema))


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
    with connect_to_migrate(dsn) as connection:
        return version_table.look(connection, schema).revision


def newest() -> str:
    """The newest revision that this code knows."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_config("pgflow", None)).get_current_head()
    assert head is not None
    return head


def _config(schema: str, dsn: str | None, patience: float | None = None) -> Config:
    if not schema or len(schema.encode()) > 63 or any(sign in schema for sign in "\0%{}:\\"):
        raise ValueError(
            f"schema={schema!r}: expected a name of 1 to 63 bytes without percent signs, braces, colons and backslashes"
        )
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(schema=schema, dsn=dsn)
    if patience is not None:
        config.attributes["patience"] = patience
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
    with _quiet():
        from alembic import command
        from alembic.util.exc import CommandError
        from sqlalchemy.exc import DBAPIError

    try:
        with _one_at_a_time, _apart():
            getattr(command, what)(config, revision, sql=sql)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.OperationalError):
            raise error.orig from None
        raise MigrationFailed(
            f"{what} to {revision!r} failed, and nothing was changed: {str(error.orig).strip()}"
        ) from error
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise MigrationFailed(
            f"{what} to {revision!r} failed, and nothing was changed: {str(error).strip()}"
        ) from error
    except CommandError as error:
        raise MigrationFailed(
            f"{what} to {revision!r} is not possible: {error}. Expected a revision that this code knows "
            "(the newest is `head`); a schema that newer code made is changed back by that code."
        ) from error


@contextmanager
def _apart() -> Iterator[None]:
    """Leave alembic's globals as they were: the application may be in the middle of a migration of its own."""
    from alembic import context, op

    kept = [(module, dict(vars(module))) for module in (context, op)]
    try:
        with _quiet():
            yield
    finally:
        for module, names in kept:
            vars(module).clear()
            vars(module).update(names)


_TALKATIVE = ("alembic.runtime.migration", "alembic.runtime.plugins")


@contextmanager
def _quiet() -> Iterator[None]:
    """Alembic's own lines about each step are not logged: one line of pgflow's reports the result."""
    thread = threading.get_ident()

    def told_by_others(record: logging.LogRecord) -> bool:
        return record.thread != thread or record.levelno > logging.INFO

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(told_by_others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(told_by_others)
