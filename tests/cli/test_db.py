"""`pgflow db`: what it prints, what it does, and its exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgflow.cli import main
from pgflow.store.schema import migrations
from tests.schema.catalogue import contents

NEWEST = migrations.newest()


def pgflow(*arguments: str, dsn: str | None = None, stdin: str | None = None, **variables: str) -> Result:
    environment: dict[str, str | None] = {"PGFLOW_DATABASE_URL": dsn, "PGFLOW_SCHEMA": None, **variables}
    return CliRunner().invoke(main, arguments, env=environment, input=stdin, prog_name="pgflow")


def said(result: Result, code: int = 0) -> str:
    """What it printed; a traceback is never among it."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def test_upgrade_current_and_downgrade(database_dsn: str) -> None:
    assert f"is at nothing; the newest revision is {NEWEST}" in said(pgflow("db", "current", dsn=database_dsn), 1)
    assert said(pgflow("db", "upgrade", dsn=database_dsn)) == f'schema "pgflow" is at {NEWEST}, it was at nothing\n'
    assert said(pgflow("db", "upgrade", dsn=database_dsn)) == f'schema "pgflow" is at {NEWEST} already\n'
    assert f"is at {NEWEST}; the newest revision is {NEWEST}" in said(pgflow("db", "current", dsn=database_dsn))
    assert "Aborted" in said(pgflow("db", "downgrade", dsn=database_dsn, stdin="n\n"), 1)
    assert migrations.current(database_dsn) == NEWEST
    for earlier in (f"{number:04}" for number in range(int(NEWEST) - 1, 0, -1)):
        assert said(pgflow("db", "downgrade", "--yes", dsn=database_dsn)) == f'schema "pgflow" is at {earlier}\n'
    assert said(pgflow("db", "downgrade", "--yes", dsn=database_dsn)) == 'schema "pgflow" is at nothing\n'
    assert said(pgflow("db", "upgrade", "--revision", "0001", "--dsn", database_dsn)).endswith("it was at nothing\n")


def test_the_schema_by_option_and_by_variable(database_dsn: str) -> None:
    said(pgflow("db", "upgrade", "--schema", 'Our "Flows"', dsn=database_dsn))
    said(pgflow("db", "upgrade", dsn=database_dsn, PGFLOW_SCHEMA="theirs"))
    assert migrations.current(database_dsn, 'Our "Flows"') == migrations.current(database_dsn, "theirs") == NEWEST
    assert migrations.current(database_dsn) is None


def test_sql_needs_no_database_and_makes_the_same(database_dsn: str) -> None:
    printed = said(pgflow("db", "sql", "--schema", "byhand"))
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute(printed.encode())
    migrations.migrate(database_dsn)
    assert contents(database_dsn, "byhand") == contents(database_dsn)


def test_no_database_named() -> None:
    assert "Missing option '--dsn'" in said(pgflow("db", "upgrade"), 2)


@pytest.mark.parametrize("command", ["upgrade", "current", "downgrade"])
@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("host=/nowhere dbname=x", "the database cannot be reached: .*Check --dsn or PGFLOW_DATABASE_URL"),
        ("nonsense", 'the DSN is not understood: missing "=" after.*expected a postgresql:// URL'),
    ],
)
def test_a_wrong_dsn(command: str, dsn: str, why: str) -> None:
    yes = ["--yes"] if command == "downgrade" else []
    result = pgflow("db", command, *yes, dsn=dsn)
    assert re.match(f"Error: .*{why}", said(result, 1), re.DOTALL)


def test_a_server_that_is_too_old(database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgflow.store.schema.compatibility.OLDEST_SERVER", 990000)
    assert "pgflow needs 99 or later" in said(pgflow("db", "upgrade", dsn=database_dsn), 1)
    assert migrations.current(database_dsn) is None


def test_a_wrong_schema_and_a_wrong_revision(database_dsn: str) -> None:
    assert "Error: schema='50%': expected a name" in said(
        pgflow("db", "upgrade", "--schema", "50%", dsn=database_dsn), 1
    )
    assert "'0815' is not possible" in said(pgflow("db", "upgrade", "--revision", "0815", dsn=database_dsn), 1)
    assert "is not possible" in said(pgflow("db", "downgrade", "--yes", dsn=database_dsn), 1)


def test_a_migration_that_fails(database_dsn: str) -> None:
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other CREATE TABLE unlike (mine int); CREATE TYPE other.runs AS ENUM ()")
    assert 'nothing was changed: type "runs" already exists' in said(
        pgflow("db", "upgrade", "--schema", "other", dsn=database_dsn), 1
    )


def test_help_imports_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose module is broken breaks itself alone."""
    import pgflow.cli

    broken = {"broken": ("pgflow.cli.no_such_module", "broken", "Is not there.")}
    monkeypatch.setattr(pgflow.cli, "_COMMANDS", pgflow.cli._COMMANDS | broken)
    printed = said(CliRunner().invoke(main, ["--help"]))
    assert "Is not there." in printed and "Create and migrate the schema." in printed
    assert "Print the SQL of an upgrade" in said(CliRunner().invoke(main, ["db", "--help"]))
    assert "No such command 'nothing'" in said(CliRunner().invoke(main, ["nothing"]), 2)


def test_cli_py_is_the_same_command() -> None:
    assert "from pgflow.cli import main" in (Path(__file__).parent.parent.parent / "cli.py").read_text()
