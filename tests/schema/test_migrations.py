"""Migrations make the schema that the metadata describes, whichever way they are run, and take it away again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from pgflow.errors import PgflowError
from pgflow.store.schema import compatibility, migrations
from pgflow.store.schema.migrations import MigrationFailed, migrate
from pgflow.store.schema.tables import make_metadata
from pgflow.store.schema.versions import SCHEMA_VERSION
from tests.schema.catalogue import contents

ROOT = Path(__file__).parent.parent.parent
NAMES = ["flows", 'Work "Flow" 2', "größe-1", "o'clock", "select", "a$$b", "a--;b", "x" * 63]
PATIENCE = 30.0


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def relations(dsn: str, schema: str = "pgflow") -> set[str]:
    query = (
        "SELECT relname FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = %s AND "
        "relkind IN ('r', 'v')"
    )
    return {name for (name,) in ask(dsn, query, schema)}


def python(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """Another Python, in a checkout, without this one's settings."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PGFLOW_", "PYTHONPATH"))}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    return out


def test_up_down_and_up_again(any_dsn: str) -> None:
    """Down leaves nothing but the table of versions, and up makes the same as before."""
    assert migrations.current(any_dsn) is None
    migrate(any_dsn)
    first = contents(any_dsn)
    assert migrations.current(any_dsn) == migrations.newest()
    migrations.downgrade(any_dsn, revision="base")
    assert migrations.current(any_dsn) is None
    assert relations(any_dsn) == {"pgflow_version"}
    assert ask(any_dsn, "SELECT proname FROM pg_proc WHERE pronamespace = 'pgflow'::regnamespace") == []
    migrate(any_dsn)
    assert contents(any_dsn) == first


@pytest.mark.parametrize("revision", [f"{number:04}" for number in range(1, int(migrations.newest()))])
def test_each_step_down_and_up_again(dsn: str, revision: str) -> None:
    """Every revision can be taken back alone, and leaves what the one before it makes."""
    newest = contents(dsn)
    migrations.downgrade(dsn, revision=revision)
    migrations.upgrade(dsn, "beside", revision=revision)
    before = contents(dsn)
    assert before == contents(dsn, "beside")
    assert before["info"][0][0] == int(revision) >= before["info"][0][1]
    migrate(dsn)
    assert contents(dsn) == newest


def test_history_reads_the_same_in_every_version(dsn: str) -> None:
    """Rows that leave out when they ended, and rows that do not; active ones and forgotten ones."""
    (id,) = ask(dsn, "SELECT pgflow.dispatch('greet')")[0]
    for table in ("events", "forgotten_events"):
        ask(
            dsn,
            f"""
            INSERT INTO pgflow.{table} (workflow_id, location, iteration, kind, name, status, created_at, completed_at)
            SELECT %s, location, iteration, 'activity', 'work', status, moment, moment + later
            FROM (VALUES
                ('1', 0, 'completed', NULL), ('2', 0, 'completed', interval '0'), ('3', 0, 'failed', interval '1 min'),
                ('4', 0, 'pending', NULL), ('5,1', 7, 'abandoned', NULL)
            ) AS v (location, iteration, status, later), (VALUES ('2031-02-03 04:05:06+00'::timestamptz)) AS w (moment)
            """,
            id,
        )
    asked = (
        "SELECT location, iteration, status, extract(epoch FROM completed_at - created_at)::int, forgotten "
        "FROM pgflow.history ORDER BY forgotten, location"
    )
    rows = [
        ("1", 0, "completed", 0),
        ("2", 0, "completed", 0),
        ("3", 0, "failed", 60),
        ("4", 0, "pending", None),
        ("5,1", 7, "abandoned", 0),
    ]
    shown = [(*row, forgotten) for forgotten in (False, True) for row in rows]
    assert ask(dsn, asked) == shown
    migrations.downgrade(dsn, revision="0002")
    assert ask(dsn, asked) == shown
    migrate(dsn)
    assert ask(dsn, asked) == shown


def test_up_again_changes_nothing(dsn: str) -> None:
    """Workflows are still there after an upgrade that finds nothing to do."""
    (id,) = ask(dsn, "SELECT pgflow.dispatch('greet')")[0]
    migrate(dsn)
    assert ask(dsn, "SELECT id FROM pgflow.workflow_overview") == [(id,)]
    assert ask(dsn, "SELECT version FROM pgflow.schema_info") == [(SCHEMA_VERSION,)]


def test_metadata_and_migrated_schema_are_the_same(any_dsn: str) -> None:
    """Alembic finds no difference, and the server's catalogue says the same of tables made from the metadata alone."""
    migrate(any_dsn, "migrated")
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(any_dsn), poolclass=NullPool)
    with engine.begin() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_schemas": True,
            "include_name": lambda name, kind, parents: kind != "schema" or name == "migrated",
            "version_table": "pgflow_version",
            "version_table_schema": "migrated",
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, make_metadata("migrated")) == []
        connection.execute(CreateSchema("made"))
        make_metadata("made").create_all(connection)
    engine.dispose()
    assert contents(any_dsn, "migrated", tables_only=True) == contents(any_dsn, "made", tables_only=True)


def test_everything_has_a_comment(dsn: str) -> None:
    """Every table, view, column and function says what it is."""
    bare = ask(
        dsn,
        """
        SELECT c.relname, a.attname
        FROM pg_class AS c
        LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'pgflow'::regnamespace AND c.relkind IN ('r', 'v')
          AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)
        UNION ALL
        SELECT proname, NULL FROM pg_proc AS p
        WHERE pronamespace = 'pgflow'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
        """,
    )
    assert bare == []


@pytest.mark.parametrize("schema", NAMES)
def test_a_schema_of_any_name(database_dsn: str, schema: str) -> None:
    """Also names that need quotes; each schema is complete and knows nothing of another."""
    migrate(database_dsn)
    migrate(database_dsn, schema)
    assert contents(database_dsn, schema) == contents(database_dsn)
    name = psycopg.sql.Identifier(schema, "dispatch").as_string()
    ((id,),) = ask(database_dsn, f"SELECT {name}('greet')")
    view = psycopg.sql.Identifier(schema, "workflow_overview").as_string()
    assert ask(database_dsn, f"SELECT id, status FROM {view}") == [(id, "pending")]
    assert ask(database_dsn, "SELECT id FROM pgflow.workflows") == []
    migrations.downgrade(database_dsn, schema, "base")
    assert relations(database_dsn, schema) == {"pgflow_version"}
    assert migrations.current(database_dsn) == migrations.newest()


@pytest.mark.parametrize("schema", ["", "x" * 64, "50%", "{a}", "a:b", "a\\b", "a\0"])
def test_names_that_cannot_be_used(database_dsn: str, schema: str) -> None:
    """Said at once, and nothing is made."""
    with pytest.raises(ValueError, match="schema=.*expected a name"):
        migrate(database_dsn, schema)


def test_offline_sql_makes_the_same(any_dsn: str) -> None:
    """What a DBA is given to run is what the upgrade does; the names in it may need quotes."""
    migrate(any_dsn)
    for schema in ("byhand", 'By "Hand"'):
        with psycopg.connect(any_dsn, autocommit=True) as connection:
            connection.execute(migrations.offline_sql(schema).encode())
        assert contents(any_dsn, schema) == contents(any_dsn)
        migrate(any_dsn, schema)
        assert migrations.current(any_dsn, schema) == migrations.newest()


def test_offline_sql_by_psql(database_dsn: str) -> None:
    """psql splits statements by its own rules."""
    psql = shutil.which("psql") or shutil.which("psql", path="/usr/lib/postgresql/15/bin")
    if psql is None:
        pytest.skip("no psql here")
    command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", database_dsn]
    subprocess.run(command, input=migrations.offline_sql("byhand"), text=True, check=True, stdout=subprocess.DEVNULL)
    migrate(database_dsn)
    assert contents(database_dsn, "byhand") == contents(database_dsn)


def test_two_upgrades_at_once(database_dsn: str) -> None:
    """Both wait behind a third, which gives up; then one of them migrates and the other finds nothing to do."""
    locked = "SELECT pg_advisory_xact_lock(hashtextextended('pgflow migration of pgflow', 0))"
    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database "
        "WHERE locktype = 'advisory' AND NOT granted AND d.datname = current_database()"
    )
    with psycopg.connect(database_dsn) as third:
        third.execute(locked)
        both = [python("cli.py", "db", "upgrade", PGFLOW_DATABASE_URL=database_dsn) for _ in range(2)]
        deadline = time.monotonic() + PATIENCE
        while ask(database_dsn, waiting) != [(2,)]:
            assert time.monotonic() < deadline, "the upgrades do not wait for each other"
            assert all(process.poll() is None for process in both), [p.communicate() for p in both]
            time.sleep(0.01)
        third.rollback()
    for process in both:
        assert f"is at {migrations.newest()}" in ended(process)
    assert ask(database_dsn, "SELECT count(*) FROM pgflow.schema_info") == [(1,)]


def test_upgrades_in_threads(database_dsn: str) -> None:
    """One process may migrate several schemas at once."""
    failed: list[BaseException] = []

    def run(schema: str) -> None:
        try:
            migrate(database_dsn, schema)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(f"s{i % 3}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failed == []
    assert [migrations.current(database_dsn, f"s{i}") for i in range(3)] == [migrations.newest()] * 3


def test_without_advisory_locks(database_dsn: str) -> None:
    """Where they are not to be had, an upgrade goes on without."""
    role = f"pgflow_test_{os.getpid()}_{time.monotonic_ns()}"
    ask(database_dsn, "REVOKE EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint) FROM PUBLIC")
    ask(database_dsn, f"CREATE ROLE {role}")
    try:
        ask(
            database_dsn,
            f"GRANT CREATE ON DATABASE {psycopg.conninfo.conninfo_to_dict(database_dsn)['dbname']} TO {role}",
        )
        migrate(psycopg.conninfo.make_conninfo(database_dsn, options=f"-c role={role}"))
        assert migrations.current(database_dsn) == migrations.newest()
    finally:
        ask(database_dsn, f"DROP OWNED BY {role} CASCADE")
        ask(database_dsn, f"DROP ROLE {role}")


def test_a_failure_changes_nothing(database_dsn: str) -> None:
    """A migration is one transaction: half of it is never there."""
    ask(database_dsn, "CREATE SCHEMA other; CREATE TYPE other.signals AS ENUM ()")
    with pytest.raises(MigrationFailed, match='nothing was changed: .*"signals" already exists'):
        migrate(database_dsn, "other")
    assert relations(database_dsn, "other") == set()


def test_a_schema_that_newer_code_made(dsn: str) -> None:
    """Its revision is unknown here: said, with what to do."""
    ask(dsn, "UPDATE pgflow.pgflow_version SET version_num = '9999'")
    with pytest.raises(MigrationFailed, match="9999.*changed back by that code"):
        migrate(dsn)
    assert relations(dsn) > {"workflows", "runs"}


def test_an_unknown_revision(dsn: str) -> None:
    with pytest.raises(MigrationFailed, match="upgrade to '0815' is not possible.*Expected a revision"):
        migrations.upgrade(dsn, revision="0815")


def test_no_server() -> None:
    """As psycopg says it."""
    with pytest.raises(psycopg.OperationalError):
        migrate("host=/nowhere dbname=nothing")


def test_a_server_that_is_too_old(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "OLDEST_SERVER", 990000)
    with pytest.raises(PgflowError, match="pgflow needs 99 or later"):
        migrate(database_dsn)
    assert relations(database_dsn) == set()


def test_the_folder_does_not_hide_the_library() -> None:
    """The repository's `alembic/` is no package, so Python finds the installed one however it is started."""
    assert not (ROOT / "alembic" / "__init__.py").exists()
    where = "import alembic; print(alembic.__file__)"
    assert Path(ended(python("-c", where)).strip()).name == "__init__.py"
    assert "usage: " in ended(python("-m", "alembic", "--help"))
    assert "Create and migrate the schema." in ended(python("cli.py", "--help"))
    ended(python("-m", "pytest", "--version"))


def test_plain_alembic_from_a_checkout(database_dsn: str) -> None:
    """With the ini file: by variables, by -x, from any directory; `check` finds nothing to add."""
    script = [str(Path(sys.executable).parent / "alembic")]
    if not Path(script[0]).exists():
        script = ["-m", "alembic"]
    ended(python(*script, "upgrade", "head", PGFLOW_DATABASE_URL=database_dsn))
    options = ["-x", f"dsn={database_dsn}", "-x", "schema=other one", "-c", str(ROOT / "alembic.ini")]
    ended(python(*script, *options, "upgrade", "head", cwd=ROOT / "tests"))
    assert contents(database_dsn, "other one") == contents(database_dsn)
    assert "No new upgrade operations" in ended(python(*script, *options, "check", cwd=ROOT / "tests"))


def test_migrations_in_the_wheel(database_dsn: str, tmp_path: Path) -> None:
    """Laid out as the wheel lays them out, far from the checkout, they are found and complete."""
    shutil.copytree(ROOT / "pgflow", tmp_path / "pgflow", ignore=shutil.ignore_patterns("__pycache__", "_binaries"))
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in built["force-include"].items():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / source, tmp_path / target)
    kept = {
        path.relative_to(ROOT / "alembic") for path in (ROOT / "alembic").rglob("*") if "__pycache__" not in path.parts
    }
    assert kept <= {
        path.relative_to(tmp_path / "pgflow/migrations") for path in (tmp_path / "pgflow/migrations").rglob("*")
    }
    code = (
        "import sys, pgflow; pgflow.migrate(sys.argv[1]); from pgflow.store.schema import migrations; "
        "print(migrations._location())"
    )
    told = ended(python("-c", code, database_dsn, cwd=tmp_path))
    assert told.strip() == str(tmp_path / "pgflow" / "migrations")
    migrate(database_dsn, "beside")
    assert contents(database_dsn) == contents(database_dsn, "beside")
