"""How a migration runs beside other sessions: one at a time, never blocking anybody for long, all or nothing.

Indexes of large tables are not built in it: migrations leave out those that would take long, and they are built
afterwards while others work.

A migration locks tables exclusively, so it waits for sessions that read them, and every later session, even one that
only reads, waits behind it. So it waits only for a moment, releases everything, and tries again until its patience
ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Connection, Engine, Index, MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateSchema

from pgflow.errors import MigrationFailed
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.pooler import Connection as PsycopgConnection
from pgflow.store.schema import version_table

_log = logging.getLogger("pgflow.store")

PATIENCE = 60.0
"""Seconds for which a migration keeps trying to lock what others hold."""

LOCK_TIMEOUT = 0.5
"""Seconds that one try waits for a table: less than the server takes to look for deadlocks, so that no worker becomes
the victim of one.
"""

REPLACED = {"workflows_children": "workflows_parent"}
"""Indexes that take the place of others, which are needed until these are built."""

_HELD = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_THERE_ALREADY = (
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateFunction,
    psycopg.errors.DuplicateColumn,
    psycopg.errors.UniqueViolation,
)


def run(engine: Engine, schema: str, apply: Callable[[Connection], None], patience: float = PATIENCE) -> None:
    """Do a migration in one transaction; try again while others hold what it needs.

    Args:
        engine: Connects to the database.
        schema: The schema's name.
        apply: Does the migration, within the transaction of its connection.
        patience: Seconds to go on trying.

    Raises:
        MigrationFailed: Others held what it needs all the time, or the schema is somebody else's. Nothing was changed.
    """
    deadline = time.monotonic() + patience
    backoff = Backoff()
    logged = False
    while True:
        before: str | None = None
        try:
            with engine.begin() as connection:
                raw = _psycopg(connection)
                alone(raw, schema, deadline)
                found = version_table.look(raw, schema)
                before = found.revision
                version_table.refuse_strangers(found, schema)
                if not found.exists:
                    connection.execute(CreateSchema(schema))
                if found.former:
                    version_table.adopt(raw, schema)
                apply(connection)
                return
        except (DBAPIError, psycopg.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            holders = _again(engine, schema, cause, before)
            if holders is None:
                raise
            if time.monotonic() > deadline:
                raise MigrationFailed(
                    f'the migration of the schema "{schema}" tried for {patience:g} s to get what others hold, and '
                    f"gave up; nothing was changed. It needs its tables for itself for a moment.{holders} Let those "
                    "end, or end them (pg_terminate_backend), and migrate again."
                ) from error
            if not logged:
                logged = True
                _log.warning(
                    'the migration of the schema "%s" waits until it can have its tables for itself.%s', schema, holders
                )
        time.sleep(backoff.spread_pause())


def build_missing(engine: Engine, schema: str, metadata: MetaData, head: object, patience: float = PATIENCE) -> None:
    """Build the indexes and keys that migrations have left out, or that an interrupted build has left invalid. Nobody
    has to wait for this.

    Args:
        engine: Connects to the database.
        schema: The schema's name.
        metadata: The tables and indexes that there should be when the schema is at the revision `head`.
        head: The revision at which indexes are built; at others nothing is done.
        patience: Seconds to wait for transactions that had begun before an index of their table is built.

    Raises:
        MigrationFailed: An index could not be built; the schema is migrated.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        raw = _psycopg(connection)
        if version_table.look(raw, schema).revision != head:
            return
        found: dict[str, bool] = dict(
            raw.execute(
                "SELECT c.relname, i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
                "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s",
                [schema],
            ).fetchall()
        )
        for index in (index for table in metadata.sorted_tables for index in table.indexes):
            if not found.get(str(index.name), False):
                _build(raw, schema, index, str(index.name) in found, patience)
                if (former := REPLACED.get(str(index.name))) in found:
                    raw.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(schema, former)))
        for table in metadata.sorted_tables:
            _build_key(raw, schema, table, patience)


def _build_key(connection: PsycopgConnection, schema: str, table: Table, patience: float) -> None:
    """Give a table the key that it should have, if a migration has left the old one: an index beside it, then a swap.

    Raises:
        MigrationFailed: It could not be built; the schema is migrated.
    """
    wanted = [column.name for column in table.primary_key.columns]
    found = connection.execute(
        "SELECT k.conname, ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c (number, place) "
        "JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = c.number ORDER BY c.place) "
        "FROM pg_constraint AS k JOIN pg_class AS t ON t.oid = k.conrelid "
        "JOIN pg_namespace AS n ON n.oid = t.relnamespace "
        "WHERE k.contype = 'p' AND n.nspname = %s AND t.relname = %s",
        [schema, table.name],
    ).fetchone()
    if found is None or found[1] == wanted:
        return
    name, place = found[0], Identifier(schema, table.name)
    index = Index(f"{name}_next", *table.primary_key.columns, unique=True)
    there = connection.execute(
        "SELECT i.indisvalid FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        [schema, index.name],
    ).fetchone()
    if there is None or not there[0]:
        _build(connection, schema, index, there is not None, patience)
    swap = SQL("ALTER TABLE {} DROP CONSTRAINT {}, ADD CONSTRAINT {} PRIMARY KEY USING INDEX {}").format(
        place, Identifier(name), Identifier(name), Identifier(str(index.name))
    )
    deadline, backoff = time.monotonic() + patience, Backoff()
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{int(LOCK_TIMEOUT * 1000)}ms"])
    while True:
        try:
            connection.execute(swap)
            return
        except _HELD as error:
            if time.monotonic() > deadline:
                raise MigrationFailed(
                    f'the schema "{schema}" is migrated, but its table {table.name} could not be given its key within '
                    f"{patience:g} s: others have transactions open that use it. Migrate again when they have ended."
                ) from error
        time.sleep(backoff.spread_pause())


def _build(connection: PsycopgConnection, schema: str, index: Index, invalid: bool, patience: float) -> None:
    name = Identifier(schema, str(index.name))
    index.dialect_options["postgresql"]["concurrently"] = True
    statement = str(CreateIndex(index, if_not_exists=True).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{max(1, int(patience * 1000))}ms"])
    try:
        if invalid:
            if connection.execute(
                "SELECT FROM pg_stat_progress_create_index WHERE datname = current_database()"
            ).fetchone():
                return  # another upgrade may be building this very index
            connection.execute(SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))
        _log.info("building the index %s; the table is in use meanwhile", index.name)
        connection.execute(statement.encode())
    except _HELD as error:
        # A half-built index stays: dropping it would wait for the same transactions. The next upgrade drops it.
        raise MigrationFailed(
            f'the schema "{schema}" is migrated, but its index {index.name} could not be built within {patience:g} '
            "s: others have transactions open that began before. Migrate again when they have ended."
        ) from error


def _psycopg(connection: Connection) -> PsycopgConnection:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def alone(connection: PsycopgConnection, schema: str, deadline: float) -> None:
    """Wait until no other migration of this schema is under way; after that, wait for nobody for long.

    Without advisory locks two may try at once; the later one finds what the other has made, and looks again.
    """
    # A role or database may have set both so short that a migration would never come to its end.
    for timeout in ("statement_timeout", "idle_in_transaction_session_timeout"):
        connection.execute("SELECT set_config(%s, '0', true)", [timeout])
    row = connection.execute(
        "SELECT has_function_privilege(to_regprocedure('pg_advisory_xact_lock(bigint)')::oid, 'EXECUTE')"
    ).fetchone()
    if row is not None and row[0]:
        left = max(1, int((deadline - time.monotonic()) * 1000))
        connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{left}ms"])
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"pgflow migration of {schema}"])
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [f"{int(LOCK_TIMEOUT * 1000)}ms"])


def _again(engine: Engine, schema: str, cause: BaseException | None, before: str | None) -> str | None:
    """Whether to try again after this error: a sentence (or nothing) about who is in the way; None: another try would
    not help.
    """
    if isinstance(cause, _HELD):
        with engine.connect() as connection:
            return _holders(_psycopg(connection), schema)
    if isinstance(cause, _THERE_ALREADY):
        with engine.connect() as connection:
            return "" if version_table.look(_psycopg(connection), schema).revision != before else None
    return None


def _holders(connection: PsycopgConnection, schema: str) -> str:
    """Whose transactions hold tables of the schema, the oldest first."""
    rows = connection.execute(
        """
        SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type, '?'), coalesce(a.state, '?'),
            coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::bigint,
            string_agg(DISTINCT c.relname, ', ' ORDER BY c.relname)
        FROM pg_locks AS l
        JOIN pg_class AS c ON c.oid = l.relation AND c.relkind = 'r'
        JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = %s
        JOIN pg_stat_activity AS a ON a.pid = l.pid
        WHERE l.granted AND l.locktype = 'relation' AND l.pid <> pg_backend_pid()
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        GROUP BY a.pid, 2, 3, 4 ORDER BY 4 DESC, 1 LIMIT 3
        """,
        [schema],
    ).fetchall()
    if not rows:
        return ""
    logged = "; ".join(
        f"process {pid} ({name}, {state}, its transaction is {age} s old) holds {what}"
        for pid, name, state, age, what in rows
    )
    return f" Now {logged}."
