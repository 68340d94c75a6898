"""The table that says which migration a schema is at, and what a schema may contain before the first one.

It has a name of its own: alembic's default, `alembic_version`, is the application's where the two share a schema.
Schemas of revisions 0001 to 0003 may still have it under that name; the next migration renames it.
"""

from __future__ import annotations

from typing import NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from pgflow.errors import MigrationFailed
from pgflow.store.database.connections import quoted
from pgflow.store.database.pooler import Connection

NAME = "pgflow_version"
FORMER = "alembic_version"
_FORMER_REVISIONS = {"0001": 1, "0002": 2, "0003": 3}
"""The revisions that a table of the former name may hold, and the version in `schema_info` that goes with each."""

_VIEWS = {"dead_signals", "history", "workflow_overview"}
_DEFAULT_SCHEMA = "pgflow"
_SHOWN = 8


class SchemaState(NamedTuple):
    """What a database has where the schema should be.

    Attributes:
        exists: whether there is a schema of that name.
        revision: the migration that it is at; None when it was never migrated, or back to the beginning.
        former: whether the revision stands in a table of the former name.
        strangers: tables, views and functions that are in the way of a first migration, by name.
    """

    exists: bool
    revision: str | None
    former: bool
    strangers: tuple[str, ...]


def look(connection: Connection, schema: str) -> SchemaState:
    """What is there."""
    exists = connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is not None
    if not exists:
        return SchemaState(False, None, False, ())
    tables = {
        str(name): str(kind)
        for name, kind in connection.execute(
            "SELECT relname, relkind FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE "
            "n.nspname = %s",
            [schema],
        )
    }
    if NAME in tables:
        revision = _read(connection, schema, NAME)
        return SchemaState(True, revision, False, () if revision else _in_the_way(connection, schema, tables))
    former = _former_revision(connection, schema, tables)
    return SchemaState(True, former, former is not None, () if former else _in_the_way(connection, schema, tables))


def refuse_strangers(found: SchemaState, schema: str) -> None:
    """Raise an error if anything is in the way of a first migration.

    Raises:
        MigrationFailed: something is in the way.
    """
    if found.strangers:
        shown = ", ".join(found.strangers[:_SHOWN])
        more = len(found.strangers) - _SHOWN
        raise MigrationFailed(
            f'the schema "{schema}" was not made by pgflow, and is not free for it: it holds {shown}'
            + (f" and {more} more" if more > 0 else "")
            + ". Nothing was changed. Name another schema (`schema=`, `--schema`, PGFLOW_SCHEMA), or give what "
            "is there another name."
        )


def adopt(connection: Connection, schema: str) -> None:
    """Rename a table of the former name that is known to be pgflow's."""
    table = Identifier(schema, FORMER)
    connection.execute(SQL("ALTER TABLE {} RENAME TO {}").format(table, Identifier(NAME)))
    connection.execute(
        SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}").format(
            Identifier(schema, NAME), Identifier(f"{FORMER}_pkc"), Identifier(f"{NAME}_pkc")
        )
    )


def adopting(schema: str) -> str:
    """The SQL of `adopt`, for a script that starts at a revision where the table may have the former name."""
    table, place = f"{quoted(schema)}.{NAME}", quoted(schema)
    literal = "'" + table.replace("'", "''") + "'"
    return (
        f"DO $adopt$ BEGIN IF to_regclass({literal}) IS NULL THEN "
        f"ALTER TABLE {place}.{FORMER} RENAME TO {NAME}; "
        f"ALTER TABLE {table} RENAME CONSTRAINT {FORMER}_pkc TO {NAME}_pkc; "
        "END IF; END $adopt$"
    )


def identity(schema: str) -> str:
    """The SQL that lets the row of a `schema_info` without a key be changed under a publication of all tables."""
    return f"ALTER TABLE {quoted(schema)}.schema_info REPLICA IDENTITY FULL"


def lacks_identity(connection: Connection, schema: str) -> bool:
    """Whether there is a `schema_info` whose row a publication of all tables would protect from changes."""
    row = connection.execute(
        """
        SELECT c.relreplident = 'd' AND NOT EXISTS (
            SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relname = 'schema_info'
        """,
        [schema],
    ).fetchone()
    return row is not None and bool(row[0])


def _read(connection: Connection, schema: str, table: str) -> str | None:
    rows = connection.execute(SQL("SELECT version_num FROM {}").format(Identifier(schema, table))).fetchall()
    return str(rows[0][0]) if rows else None


def _former_revision(connection: Connection, schema: str, tables: dict[str, str]) -> str | None:
    """The revision in a table of the former name, if that is pgflow's: it has one row, and a `schema_info` that goes
    with it.
    """
    if not tables.keys() >= {FORMER, "schema_info", "workflows", "runs", "events"}:
        return None
    try:
        with connection.transaction():
            rows = connection.execute(
                SQL("SELECT a.version_num, i.version FROM {} AS a, {} AS i").format(
                    Identifier(schema, FORMER), Identifier(schema, "schema_info")
                )
            ).fetchall()
    except psycopg.errors.UndefinedColumn:
        return None  # two strangers
    if len(rows) == 1 and _FORMER_REVISIONS.get(rows[0][0], 0) == rows[0][1]:
        return str(rows[0][0])
    return None


def _in_the_way(connection: Connection, schema: str, kinds: dict[str, str]) -> tuple[str, ...]:
    """Relations with names that pgflow needs. A schema of the default name that is not empty belongs to some other
    pgflow.
    """
    shown = {
        "r": "table",
        "p": "table",
        "v": "view",
        "m": "view",
        "f": "table",
        "S": "sequence",
        "i": "index",
        "I": "index",
        "c": "type",
    }
    if schema != _DEFAULT_SCHEMA:
        taken = sorted(_names() & kinds.keys())
        return tuple(f"{shown.get(kinds[name], 'relation')} {name}" for name in taken)
    empty_version_table = (
        FORMER in kinds
        and not connection.execute(SQL("SELECT FROM {} LIMIT 1").format(Identifier(schema, FORMER))).fetchall()
    )
    own = {NAME, f"{NAME}_pkc"} | ({FORMER, f"{FORMER}_pkc"} if empty_version_table else set())
    functions = connection.execute(
        "SELECT DISTINCT proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = "
        "%s ORDER BY 1",
        [schema],
    )
    return (
        *(
            f"{shown[kinds[name]]} {name}"
            for name in sorted(kinds.keys() - own)
            if shown.get(kinds[name]) in ("table", "view")
        ),
        *(f"function {name}" for (name,) in functions),
    )


def _names() -> set[str]:
    """Names of tables, views and indexes of this code's schema."""
    from pgflow.store.schema.tables import make_metadata  # imports all of SQLAlchemy, which is needed only here

    tables = make_metadata().tables.values()
    indexes = {str(index.name) for table in tables for index in table.indexes} | {
        f"{table.name}_pkey" for table in tables
    }
    return {table.name for table in tables} | indexes | _VIEWS
