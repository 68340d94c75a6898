"""`pgflow audit`, and the options for who and why of the commands that operate."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner

from pgflow.cli import main


class Command:
    """`pgflow` on one database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def __call__(self, *arguments: Any, code: int = 0, **variables: str) -> str:
        environment = {"PGFLOW_DATABASE_URL": self.dsn, "PGFLOW_SCHEMA": None, "COLUMNS": "300", **variables}
        result = CliRunner().invoke(main, [*map(str, arguments)], env=environment, prog_name="pgflow")
        assert result.exit_code == code, result.output
        return result.output.strip()

    def ask(self, query: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def dead(self, workflow_id: str) -> UUID:
        """A signal that was set aside."""
        id = uuid4()
        self.ask(
            "INSERT INTO pgflow.signals (id, workflow_id, name, body, number, dropped_at, problem) "
            "VALUES (%s, %s, 'go', '{}', 1, now(), 'unfit')",
            id,
            workflow_id,
        )
        return id


@pytest.fixture
def pgflow(dsn: str) -> Command:
    return Command(dsn)


def test_each_command_says_who_and_why(pgflow: Command) -> None:
    id = pgflow("workflow", "dispatch", "flow")
    pgflow.ask("UPDATE pgflow.runs SET epoch = 1")  # a worker has had it
    for number, operation in enumerate(("pause", "resume", "cancel")):
        pgflow("workflow", operation, id, "--actor", "kim", "--reason", f"why {number}")
    pgflow.ask("UPDATE pgflow.runs SET status = 'failed', wake_at = NULL, reset = '{1}'")
    pgflow.ask("UPDATE pgflow.workflows SET status = 'failed', error = '{}'")
    pgflow.ask(
        "INSERT INTO pgflow.events (workflow_id, location, kind, name, status, attempts, seq, completed_at) "
        "VALUES (%s, '1', 'activity', 'ask', 'failed', 5, 1, now())",
        id,
    )
    as_eva = partial(pgflow, PGFLOW_ACTOR="eva", PGFLOW_REASON="incident 7")
    as_eva("workflow", "fork", id, "--before", "{1}")
    as_eva("workflow", "retry", id)
    as_eva("signal", "redeliver", pgflow.dead(id))
    as_eva("signal", "drop", pgflow.dead(id), "--reason", "nobody misses it")
    assert pgflow.ask("SELECT operation, actor, reason FROM pgflow.audit ORDER BY id") == [
        ("pause", "kim", "why 0"),
        ("resume", "kim", "why 1"),
        ("cancel", "kim", "why 2"),
        ("fork", "eva", "incident 7"),
        ("retry", "eva", "incident 7"),
        ("redeliver", "eva", "incident 7"),
        ("drop", "eva", "nobody misses it"),
    ]


def test_what_cannot_be(pgflow: Command) -> None:
    id = pgflow("workflow", "dispatch", "flow")
    assert "expected a name of 1 to 200 printable" in pgflow("workflow", "pause", id, "--actor", "a\tb", code=1)
    assert "expected a text of at most 2,000" in pgflow("workflow", "pause", id, "--reason", "a" * 2001, code=1)
    assert "expected a day or a moment" in pgflow("audit", "--since", "yesterday", code=2)
    assert "is not a valid UUID" in pgflow("audit", "seven", code=2)
    assert pgflow.ask("SELECT FROM pgflow.audit") == []


def test_the_list(pgflow: Command) -> None:
    """The last first; who acted under another name is shown with the role; nothing steers the terminal."""
    first, second = (pgflow("workflow", "dispatch", "flow") for _ in range(2))
    pgflow("workflow", "pause", first, "--actor", "kim", "--reason", "an \x1b[31mincident")
    pgflow("workflow", "cancel", second)
    letter = pgflow.dead(second)
    pgflow("signal", "drop", letter, "--actor", "kim")
    ((role,),) = pgflow.ask("SELECT session_user")
    head, *lines = pgflow("audit").splitlines()
    assert head.split() == ["number", "at", "actor", "operation", "on", "reason"]
    assert [line.split()[3:] for line in lines] == [
        ["kim", "(as", f"{role})", "drop", second, "signal", str(letter), '{"name":', '"go"}'],
        [role, "cancel", second],
        ["kim", "(as", f"{role})", "pause", first, "an", "\\x1b[31mincident"],
    ]
    found = json.loads(pgflow("audit", first, "--json"))
    assert [(one["operation"], one["actor"], one["role"], one["reason"]) for one in found] == [
        ("pause", "kim", role, "an \x1b[31mincident")
    ]

    def operations(*filters: Any) -> list[str]:
        return [one["operation"] for one in json.loads(pgflow("audit", *filters, "--json"))]

    assert operations("--actor", "kim") == ["drop", "pause"]
    assert operations("--operation", "cancel") == ["cancel"]
    assert operations("--since", "2020-01-01") == ["drop", "cancel", "pause"]
    assert operations("--since", "2199-01-01T00:00+02:00") == []
    shown = pgflow("audit", "--limit", 2)
    assert "There are more than 2; go on with --after" in shown
    after = shown.rpartition("--after ")[2].rstrip(".")
    assert operations("--after", after) == ["pause"]
