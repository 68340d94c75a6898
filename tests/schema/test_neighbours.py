"""Migrations in databases that are not pgflow's alone: beside the application's alembic, replication, readers, DBAs,
other pgflows.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic
import alembic.command
import alembic.config
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import Identifier

import pgflow
from pgflow.store.schema import migrations
from pgflow.store.schema.migrations import migrate
from tests.databases import name_of
from tests.schema.catalogue import contents

PATIENCE = 60.0

ENV = """
from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
import psycopg
engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect({dsn!r}), poolclass=NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
from alembic import context, op
import pgflow
revision, down_revision = "one", None
def upgrade():
    {body}
    op.execute("CREATE TABLE mine (id int)")
    assert context.config.get_main_option("whose") == "the application"
def downgrade():
    op.drop_table("mine")
"""


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def formerly(dsn: str, schema: str = "pgflow", revision: str = "0003") -> None:
    """A schema as code of before left it."""
    migrations.upgrade(dsn, schema, revision)
    name = Identifier(schema).as_string()
    ask(dsn, f"ALTER TABLE {name}.pgflow_version RENAME TO alembic_version")
    ask(dsn, f"ALTER TABLE {name}.alembic_version RENAME CONSTRAINT pgflow_version_pkc TO alembic_version_pkc")
    ask(dsn, f"ALTER TABLE {name}.schema_info REPLICA IDENTITY DEFAULT")


class Application:
    """An application with an alembic of its own, which has one migration."""

    def __init__(self, folder: Path, dsn: str, body: str = "pass") -> None:
        (folder / "versions").mkdir()
        shutil.copy(Path(alembic.__file__).parent / "templates/generic/script.py.mako", folder)
        (folder / "env.py").write_text(ENV.format(dsn=dsn))
        (folder / "versions" / "one.py").write_text(REVISION.format(body=body))
        self.config = alembic.config.Config()
        for option, value in (("script_location", str(folder)), ("path_separator", "os"), ("whose", "the application")):
            self.config.set_main_option(option, value)

    def upgrade(self) -> None:
        alembic.command.upgrade(self.config, "head")

    def downgrade(self) -> None:
        alembic.command.downgrade(self.config, "base")


@contextmanager
def role(dsn: str, *grants: str) -> Iterator[str]:
    """A role with some rights, and the DSN with which its bearer works."""
    name = f"pgflow_test_{os.getpid()}_{time.monotonic_ns()}"
    ask(dsn, f"CREATE ROLE {name}")
    try:
        for grant in grants:
            ask(dsn, grant.format(role=name, database=name_of(dsn)))
        yield make_conninfo(dsn, options=f"-c role={name}")
    finally:
        ask(dsn, f"DROP OWNED BY {name} CASCADE")
        ask(dsn, f"DROP ROLE {name}")


@pytest.mark.parametrize("start", [None, "0001", "0002", "0003"])
def test_under_a_publication_of_all_tables(database_dsn: str, start: str | None) -> None:
    """From nothing, from every revision of before, and back: no row is without an identity when it is changed."""
    if start is not None:
        formerly(database_dsn, revision=start)
    ask(database_dsn, "CREATE PUBLICATION everything FOR ALL TABLES")
    migrate(database_dsn)
    keyless = """
        SELECT c.relname FROM pg_class AS c
        WHERE c.relnamespace = 'pgflow'::regnamespace AND c.relkind = 'r'
          AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)
    """
    assert ask(database_dsn, keyless) == []
    assert ask(
        database_dsn, "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgflow'::regnamespace AND relreplident = 'f'"
    ) == [(0,)]
    migrations.downgrade(database_dsn, revision="0001")
    migrations.downgrade(database_dsn, revision="base")
    migrate(database_dsn)


def test_scripts_under_a_publication_of_all_tables(database_dsn: str) -> None:
    """What a DBA is given to run works there as well, from wherever it begins, also at a schema that code of before
    made.
    """
    ask(database_dsn, "CREATE PUBLICATION everything FOR ALL TABLES")
    migrate(database_dsn, "made")
    for number, start in enumerate(("base", "0001", "0002", "0003"), 1):
        for schema, by in ((f"new {number}", migrations.upgrade), (f"o'ld {number}", formerly)):
            if start != "base":
                by(database_dsn, schema, revision=start)
            ask(database_dsn, migrations.offline_sql(schema, f"{start}:head"))
            assert contents(database_dsn, schema) == contents(database_dsn, "made")
            assert migrations.current(database_dsn, schema) == migrations.newest()


def test_a_schema_made_by_a_dba(database_dsn: str) -> None:
    """Its owner may not create schemas, and need not."""
    with role(database_dsn, "CREATE SCHEMA flows AUTHORIZATION {role}") as dsn:
        migrate(dsn, "flows")
        assert migrations.current(dsn, "flows") == migrations.newest()
        with pytest.raises(pgflow.MigrationFailed, match="permission denied for database"):
            migrate(dsn, "more")


def test_nothing_to_do_needs_no_rights(dsn: str) -> None:
    """Who may read which migration the schema is at may find that there is nothing to do."""
    grants = ["GRANT USAGE ON SCHEMA pgflow TO {role}", "GRANT SELECT ON ALL TABLES IN SCHEMA pgflow TO {role}"]
    with role(dsn, *grants) as poor:
        migrate(poor)
        assert migrations.current(poor) == migrations.newest()


def test_who_may_not_even_look(dsn: str) -> None:
    """An error of the migration, not of the driver."""
    with (
        role(dsn, "GRANT USAGE ON SCHEMA pgflow TO {role}") as poor,
        pytest.raises(pgflow.MigrationFailed, match="permission denied"),
    ):
        migrate(poor)


def test_within_a_migration_of_the_application(database_dsn: str, tmp_path: Path) -> None:
    """Which goes on with its own context and operations afterwards, and has its transaction for itself."""
    application = Application(tmp_path, database_dsn, f"pgflow.migrate({database_dsn!r})")
    application.upgrade()
    assert migrations.current(database_dsn) == migrations.newest()
    assert ask(database_dsn, "SELECT version_num FROM public.alembic_version") == [("one",)]
    assert ask(database_dsn, "SELECT count(*) FROM public.mine") == [(0,)]


def test_a_migration_that_fails_leaves_the_applications_alone(database_dsn: str, tmp_path: Path) -> None:
    """The application may catch it and go on."""
    body = (
        f"\n    from pgflow.store.schema import migrations\n    try:\n        migrations.upgrade({database_dsn!r}, "
        "revision='0815')\n    except pgflow.MigrationFailed:\n        pass"
    )
    Application(tmp_path, database_dsn, body).upgrade()
    assert ask(database_dsn, "SELECT version_num FROM public.alembic_version") == [("one",)]


@pytest.mark.parametrize("who_first", ["application", "pgflow", "pgflow, long ago"])
def test_in_one_schema_with_the_application(database_dsn: str, tmp_path: Path, who_first: str) -> None:
    """In `public` each finds its own revision, and takes back its own."""
    application = Application(tmp_path, database_dsn)
    if who_first == "application":
        application.upgrade()
    elif who_first == "pgflow, long ago":
        formerly(database_dsn, "public")
    migrate(database_dsn, "public")
    application.upgrade()
    versions = "SELECT a.version_num, p.version_num FROM alembic_version AS a, pgflow_version AS p"
    assert ask(database_dsn, versions) == [("one", migrations.newest())]
    migrate(database_dsn, "public")
    migrations.downgrade(database_dsn, "public", "base")
    assert ask(
        database_dsn,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1",
    ) == [
        ("alembic_version",),
        ("mine",),
        ("pgflow_version",),
    ]
    migrate(database_dsn, "public")
    application.downgrade()
    assert migrations.current(database_dsn, "public") == migrations.newest()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_the_table_of_before_is_taken_over(database_dsn: str, revision: str) -> None:
    """Whatever revision it was left at; what comes out is what a new schema is."""
    formerly(database_dsn, revision=revision)
    assert migrations.current(database_dsn) == revision
    migrate(database_dsn)
    assert ask(database_dsn, "SELECT to_regclass('pgflow.alembic_version')") == [(None,)]
    migrate(database_dsn, "made")
    assert contents(database_dsn) == contents(database_dsn, "made")


def test_a_table_that_only_looks_like_the_one_of_before(database_dsn: str, tmp_path: Path) -> None:
    """An application may count its revisions as pgflow does: without the tables that go with it, it is not pgflow's."""
    ask(
        database_dsn,
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY); INSERT INTO alembic_version VALUES "
        "('0002')",
    )
    assert migrations.current(database_dsn, "public") is None
    migrate(database_dsn, "public")
    assert ask(database_dsn, "SELECT version_num FROM public.alembic_version") == [("0002",)]
    assert migrations.current(database_dsn, "public") == migrations.newest()


@pytest.mark.parametrize(
    ("schema", "made", "said"),
    [
        (
            "pgflow",
            "CREATE TABLE pgflow.flows (); CREATE TABLE pgflow.steps ()",
            "it holds table flows, table steps. Nothing was changed",
        ),
        (
            "pgflow",
            "CREATE FUNCTION pgflow.start_flow() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "it holds function start_flow",
        ),
        (
            "pgflow",
            "CREATE TABLE pgflow.alembic_version AS SELECT 'abc' AS version_num",
            "it holds table alembic_version",
        ),
        (
            "pgflow",
            "CREATE TABLE pgflow.alembic_version AS SELECT '0003' AS version_num; CREATE TABLE pgflow.schema_info "
            "(what text); CREATE TABLE pgflow.workflows (); CREATE TABLE pgflow.runs (); CREATE TABLE pgflow.events ()",
            "it holds table alembic_version, table events, table runs, table schema_info, table workflows",
        ),
        (
            "pgflow",
            "CREATE TABLE pgflow.alembic_version AS SELECT '0003' AS version_num; CREATE TABLE pgflow.schema_info AS "
            "SELECT 7 AS version; CREATE TABLE pgflow.workflows (); CREATE TABLE pgflow.runs (); CREATE TABLE "
            "pgflow.events ()",
            "it holds table alembic_version, table events, table runs, table schema_info, table workflows",
        ),
        (
            "public",
            "CREATE TABLE mine (); CREATE TABLE events (); CREATE VIEW history AS SELECT 1",
            "it holds table events, view history",
        ),
        (
            "public",
            "CREATE TABLE mine (runs_pkey int UNIQUE); CREATE SEQUENCE workflows",
            "it holds sequence workflows",
        ),
        ("pgflow", " ".join(f"CREATE TABLE pgflow.t{n} ();" for n in range(10, 22)), "t17 and 4 more"),
    ],
)
def test_a_schema_of_somebody_else(database_dsn: str, schema: str, made: str, said: str) -> None:
    """Two other projects are called pgflow: what is found is told, and stays as it was."""
    ask(database_dsn, f"CREATE SCHEMA IF NOT EXISTS {schema}")
    ask(database_dsn, made)
    names = f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace ORDER BY 1"
    before = ask(database_dsn, names)
    with pytest.raises(pgflow.MigrationFailed, match=f'"{schema}" was not made by pgflow.*{said}.*Name another schema'):
        migrate(database_dsn, schema)
    assert ask(database_dsn, names) == before
    assert migrations.current(database_dsn, schema) is None


def test_readers_hold_it_up_and_it_holds_up_nobody(database_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """It waits for a moment, lets others go first, tries again, and comes through when the reader has ended."""
    migrations.upgrade(database_dsn, revision="0001")
    failed: list[BaseException] = []

    def run() -> None:
        try:
            migrate(database_dsn)
        except BaseException as error:
            failed.append(error)

    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
    with (
        psycopg.connect(database_dsn, application_name="report") as reader,
        psycopg.connect(database_dsn, autocommit=True) as other,
    ):
        reader.execute("LOCK TABLE pgflow.runs, pgflow.events, pgflow.workflows IN ACCESS SHARE MODE")
        (reader_pid,) = reader.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        thread = threading.Thread(target=run)
        thread.start()
        waited = 0
        deadline = time.monotonic() + PATIENCE
        while waited < 2:
            assert time.monotonic() < deadline and not failed, failed
            if other.execute(waits).fetchone() == (1,):
                # Whoever comes now is behind it, and gets through although the reader stays.
                for table in ("runs", "events", "workflows", "schema_info"):
                    other.execute(f"SELECT count(*) FROM pgflow.{table}".encode())
                waited += 1
        assert thread.is_alive()
        reader.rollback()
        thread.join(PATIENCE)
    assert failed == []
    assert migrations.current(database_dsn) == migrations.newest()
    told = [
        record.getMessage() for record in caplog.records if "waits until it can have its tables" in record.getMessage()
    ]
    assert len(told) == 1
    assert (
        f"process {reader_pid} (report, idle in transaction" in told[0] and "holds events, runs, workflows" in told[0]
    )


def test_patience_ends(database_dsn: str) -> None:
    """Who stands in the way is named, and nothing was changed."""
    migrations.upgrade(database_dsn, revision="0003")
    before = contents(database_dsn)
    with psycopg.connect(database_dsn, application_name="report") as reader:
        reader.execute("SELECT FROM pgflow.schema_info")
        with pytest.raises(
            pgflow.MigrationFailed, match="gave up; nothing was changed.*report, idle in transaction.*holds schema_info"
        ):
            migrate(database_dsn, patience=0.1)
    assert contents(database_dsn) == before


def test_patience_with_another_migration_ends(database_dsn: str) -> None:
    """Also of one that waits for another migration, which is nobody's table."""
    with psycopg.connect(database_dsn) as another:
        another.execute("SELECT pg_advisory_xact_lock(hashtextextended('pgflow migration of pgflow', 0))")
        with pytest.raises(pgflow.MigrationFailed, match="gave up; nothing was changed"):
            migrate(database_dsn, patience=0.1)


def test_timeouts_of_the_role_end_no_migration(database_dsn: str) -> None:
    """Seen by a trigger on each of its statements."""
    ask(
        database_dsn,
        "CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF NOT (current_setting("
        "'statement_timeout') = '0' AND current_setting('idle_in_transaction_session_timeout') = '0') THEN RAISE "
        "EXCEPTION 'a migration may be timed out'; END IF; END $$",
    )
    ask(database_dsn, "CREATE EVENT TRIGGER look ON ddl_command_end EXECUTE FUNCTION look()")
    timeouts = "-c statement_timeout=5min -c idle_in_transaction_session_timeout=5min"
    migrate(make_conninfo(database_dsn, options=timeouts))
    assert migrations.current(database_dsn) == migrations.newest()


TEN_AT_ONCE = """
import os, sys, traceback
import alembic.command, sqlalchemy.dialects.postgresql.psycopg, pgflow

go, ready = os.pipe()
children = []
for _ in range(10):
    pid = os.fork()
    if not pid:
        os.close(ready)
        os.read(go, 1)  # ends when nobody can write to it any more
        try:
            pgflow.migrate(sys.argv[1])
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    children.append(pid)
os.close(ready)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
"""
"""Ten processes that migrate the same database; forked, so that the imports are paid for once."""


@pytest.mark.parametrize("locks", [True, False])
def test_ten_at_once(database_dsn: str, locks: bool) -> None:
    """One of them does it, with advisory locks or without."""
    if not locks:
        ask(database_dsn, "REVOKE EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint) FROM PUBLIC")
    with role(database_dsn, "GRANT CREATE ON DATABASE {database} TO {role}") as dsn:
        ten = subprocess.run([sys.executable, "-c", TEN_AT_ONCE, dsn], capture_output=True, text=True, timeout=PATIENCE)
        assert ten.stdout.strip() == str([0] * 10), ten.stderr
        assert migrations.current(dsn) == migrations.newest()
        assert ask(dsn, "SELECT count(*) FROM pgflow.schema_info") == [(1,)]


def test_one_line_is_logged(database_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """And the application's own loggers stay as they are."""
    caplog.set_level(logging.INFO)
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("alembic.runtime.migration").filters[:])
    for _ in range(2):
        caplog.clear()
        migrate(database_dsn)
        assert [record.getMessage() for record in caplog.records] == [
            f'the schema "pgflow" is at revision {migrations.newest()}'
        ]
    assert (root.level, list(root.handlers), logging.getLogger("alembic.runtime.migration").filters[:]) == before


def test_a_search_path_of_its_own(dsn: str) -> None:
    """What stands in the way is looked up in the schema that was named, whatever the session's path."""
    migrate(make_conninfo(dsn, options="-c search_path=pgflow"), "beside")
    assert contents(dsn) == contents(dsn, "beside")


LARGE = """
    ALTER TABLE pgflow.signals SET (fillfactor = 10);
    INSERT INTO pgflow.signals (id, workflow_id, name, body)
    SELECT gen_random_uuid(), gen_random_uuid(), 'word', '{}' FROM generate_series(1, 50000);
    ALTER TABLE pgflow.signals SET (fillfactor = 80);
    ALTER TABLE pgflow.workflows SET (fillfactor = 10);
    INSERT INTO pgflow.workflows (id, name, input) SELECT gen_random_uuid(), 'job', '{}' FROM generate_series(1, 50000);
    ALTER TABLE pgflow.workflows SET (fillfactor = 40)
"""


def test_indexes_of_large_tables_are_built_beside_others(database_dsn: str) -> None:
    """The migration leaves out what would take long; whoever reads or writes meanwhile goes on, and what comes out is
    the same.
    """
    migrations.upgrade(database_dsn, revision="0005")
    ask(database_dsn, LARGE)
    migrations.upgrade(database_dsn, revision="0007")
    for index in ("signals_dead", "workflows_created", "workflows_name"):
        assert ask(database_dsn, f"SELECT to_regclass('pgflow.{index}')") == [(None,)]
    with psycopg.connect(database_dsn) as other:
        other.execute("INSERT INTO pgflow.requests (workflow_id, kind) VALUES (gen_random_uuid(), 'cancel')")
        other.commit()
        migrate(database_dsn)
    migrate(database_dsn, "made")
    assert contents(database_dsn) == contents(database_dsn, "made")


def test_the_key_of_a_large_table_is_swapped_beside_others(database_dsn: str) -> None:
    """The migration leaves it out, and what comes out is the same."""
    migrations.upgrade(database_dsn, revision="0018")
    ask(
        database_dsn,
        """
        ALTER TABLE pgflow.forgotten_events SET (fillfactor = 10);
        INSERT INTO pgflow.forgotten_events (workflow_id, location, kind, status)
        SELECT gen_random_uuid(), '1', 'activity', 'completed' FROM generate_series(1, 40000);
        ALTER TABLE pgflow.forgotten_events RESET (fillfactor)
        """,
    )
    migrate(database_dsn)
    migrate(database_dsn, "made")
    assert contents(database_dsn) == contents(database_dsn, "made")


def test_until_the_key_is_there_rewinds_are_refused(dsn: str) -> None:
    """Whoever has the table in use is waited for, and told of."""
    before = contents(dsn)
    ask(
        dsn,
        "ALTER TABLE pgflow.forgotten_events DROP CONSTRAINT forgotten_events_pkey, "
        "ADD PRIMARY KEY (workflow_id, location)",
    )
    (id,) = ask(dsn, "SELECT pgflow.dispatch('greet')")[0]
    ask(dsn, "UPDATE pgflow.runs SET status = 'failed'")
    with pytest.raises(psycopg.Error, match="has not been built anew(.|\n)*pgflow db upgrade goes on with it"):
        ask(dsn, "SELECT pgflow.rewind(%s, '1')", id)
    with psycopg.connect(dsn) as stranger:
        stranger.execute("SELECT FROM pgflow.forgotten_events LIMIT 1")
        with pytest.raises(pgflow.MigrationFailed, match="is migrated, but its table forgotten_events could not"):
            migrate(dsn, patience=0.2)
        stranger.rollback()
    migrate(dsn)
    assert contents(dsn) == before


def test_an_index_that_a_cut_off_build_has_left_is_built_anew(dsn: str) -> None:
    """Also when the migration itself has nothing to do; and a transaction that it waits for in vain is told of."""
    ask(dsn, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgflow.signals_dead'::regclass")
    with psycopg.connect(dsn) as stranger:
        stranger.execute(
            "INSERT INTO pgflow.signals (id, workflow_id, name, body) VALUES (gen_random_uuid(), gen_random_uuid(), "
            "'a', '{}')"
        )
        with pytest.raises(pgflow.MigrationFailed, match="is migrated, but its index signals_dead could not be built"):
            migrate(dsn, patience=0.2)
        stranger.rollback()
    migrate(dsn)
    assert ask(dsn, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'pgflow.signals_dead'::regclass") == [(True,)]
