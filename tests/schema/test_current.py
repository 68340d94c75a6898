"""The functions of the schema as they are today, in one file to read: migrations make them, and later ones change them.

`python -m tests.schema.test_current` writes `pgflow/store/schema/functions.sql` anew. About 1 second.
"""

from __future__ import annotations

from pathlib import Path

import psycopg

from pgflow.embedded import Postgres
from pgflow.store.schema.migrations import migrate

KEPT = Path(__file__).resolve().parents[2] / "pgflow" / "store" / "schema" / "functions.sql"
HEAD = """-- The functions of the schema as all migrations together leave them: to be read, and never executed.
-- Written by `python -m tests.schema.test_current`, and compared with a migrated database by the tests.
"""
FUNCTIONS = """
    SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
        obj_description(p.oid, 'pg_proc'), p.prosrc
    FROM pg_proc AS p WHERE p.pronamespace = 'pgflow'::regnamespace ORDER BY p.proname, p.pronargs, 2
"""


def current(dsn: str) -> str:
    """What the file should hold."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute(FUNCTIONS).fetchall()
    parts = [HEAD]
    for name, arguments, result, comment, source in found:
        says = "".join(f"-- {line}\n" for line in (comment or "").splitlines())
        parts.append(f"\n\n{says}-- {name}({arguments})\n-- RETURNS {result}\n{source.strip()}\n")
    return "".join(parts)


def test_the_file_is_what_migrations_make(dsn: str) -> None:
    assert KEPT.read_text(encoding="utf-8") == current(dsn), "run `python -m tests.schema.test_current`"


if __name__ == "__main__":
    with Postgres() as server:
        migrate(server.dsn)
        KEPT.write_text(current(server.dsn), encoding="utf-8")
