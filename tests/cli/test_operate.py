"""`pgflow workflow` as an operator's tool: what a client can do to one workflow, from the command line."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import psycopg
from click.testing import CliRunner

from pgflow.cli import main


class Command:
    """`pgflow workflow` on one database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def __call__(self, *arguments: Any, code: int = 0) -> str:
        environment = {"PGFLOW_DATABASE_URL": self.dsn, "PGFLOW_SCHEMA": None}
        result = CliRunner().invoke(main, ["workflow", *map(str, arguments)], env=environment, prog_name="pgflow")
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.output.strip()


def one(dsn: str, query: str, *values: Any) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchone() if cursor.description else None


def test_dispatch(dsn: str) -> None:
    flow = Command(dsn)
    id = flow("dispatch", "checkout", '{"order": 7}', "--tags", '{"shop": "north"}', "--priority", "3")
    assert one(dsn, "SELECT name, input, tags, priority, status FROM pgflow.workflow_overview WHERE id = %s", id) == (
        "checkout",
        {"order": 7},
        {"shop": "north"},
        3,
        "pending",
    )
    assert flow("dispatch", "checkout", "--id", id) == id
    assert "expected a JSON object" in flow("dispatch", "checkout", "[]", code=2)
    assert "is not JSON" in flow("dispatch", "checkout", "{order: 7}", code=2)
    assert "INPUT names queue" in flow("dispatch", "checkout", '{"queue": 1}', code=1)
    assert one(dsn, "SELECT count(*) FROM pgflow.workflows") == (1,)


def test_signal(dsn: str) -> None:
    flow = Command(dsn)
    id = flow("dispatch", "approve")
    sent = flow("signal", id, "approved", '{"by": "eva", "at": [1, 2]}')
    assert one(dsn, "SELECT id::text, name, body FROM pgflow.signals") == (
        sent,
        "approved",
        {"by": "eva", "at": [1, 2]},
    )
    assert "there is no workflow" in flow("signal", uuid4(), "approved", code=1)


def test_cancel_pause_and_resume(dsn: str) -> None:
    flow = Command(dsn)
    id = flow("dispatch", "approve")
    assert flow("pause", id).startswith("it is paused")
    assert one(dsn, "SELECT status FROM pgflow.runs") == ("paused",)
    assert flow("resume", id) == "it goes on"
    assert flow("resume", id, code=1) == "it is not paused"
    one(dsn, "UPDATE pgflow.runs SET epoch = 1")  # a worker has had it
    assert flow("cancel", id) == "it will be cancelled"
    assert one(dsn, "SELECT kind FROM pgflow.requests") == ("cancel",)
    assert "cancel: there is no workflow" in flow("cancel", uuid4(), code=1)


def test_retry_and_fork(dsn: str) -> None:
    flow = Command(dsn)
    id = flow("dispatch", "approve")
    assert "is pending, expected a failed one" in flow("retry", id, code=1)
    one(dsn, "UPDATE pgflow.runs SET status = 'failed', wake_at = NULL, reset = '{1}'")
    one(dsn, "UPDATE pgflow.workflows SET status = 'failed', error = '{}'")
    one(
        dsn,
        "INSERT INTO pgflow.events (workflow_id, location, kind, name, status, attempts, seq, completed_at) "
        "VALUES (%s, '1', 'activity', 'ask', 'failed', 5, 1, now())",
        id,
    )
    forked = flow("fork", id, "--before", "{1}", "--queue", "other")
    assert one(dsn, "SELECT queue, forked_from::text FROM pgflow.workflow_overview WHERE id = %s", forked) == (
        "other",
        id,
    )
    assert "is no location" in flow("fork", id, "--before", "here", code=1)
    assert flow("retry", id) == "it goes on"
    assert one(dsn, "SELECT status, attempts, seq FROM pgflow.events") == ("pending", 0, None)


def test_rewind(dsn: str) -> None:
    """It asks before it is done, unless told not to; a refusal changes nothing."""
    flow = Command(dsn)
    id = flow("dispatch", "checkout")
    assert "is pending, expected one that is paused or failed" in flow("rewind", id, "--before", "{1}", "--yes", code=1)
    steps = "INSERT INTO pgflow.events (workflow_id, location, seq, kind, name, status, output) VALUES "
    one(dsn, steps + "(%s, '1', 1, 'activity', 'charge', 'completed', '7')", id)
    child = flow("dispatch", "below")
    one(
        dsn,
        steps + "(%s, '2', 2, 'child_workflow', 'below', 'completed', json_build_object('id', %s::text))",
        id,
        child,
    )
    one(dsn, "UPDATE pgflow.workflows SET parent_id = %s WHERE id = %s", id, child)
    one(dsn, "UPDATE pgflow.runs SET status = 'failed' WHERE workflow_id = %s", id)
    one(dsn, "UPDATE pgflow.workflows SET status = 'failed', completed_at = now() WHERE id = %s", id)
    said = flow("rewind", id, "--before", "{2}", "--dry-run")
    assert said == f"Rewind 1: 1 steps would be undone, 0 signals would be returned. Children left running: {child}."
    asked = flow("rewind", id, "--before", "{2}", code=1)
    assert "Rewind it? [y/N]" in asked and one(dsn, "SELECT status FROM pgflow.workflows WHERE id = %s", id) == (
        "failed",
    )
    assert "has no step at {9}" in flow("rewind", id, "--before", "{9}", "--yes", code=1)
    assert "is no location" in flow("rewind", id, "--before", "one", "--yes", code=1)
    assert "is not one of" in flow("rewind", id, "--before", "{2}", "--children", "kill", code=2)
    done = json.loads(
        flow("rewind", id, "--before", "{2}", "--children", "cancel", "--yes", "--json", "--reason", "why")
    )
    assert done == {"number": 1, "steps": 1, "signals": 0, "children": [child], "recorded_by": []}
    assert one(dsn, "SELECT status FROM pgflow.workflows WHERE id = %s", child) == ("cancelled",)
    assert one(dsn, "SELECT reason FROM pgflow.audit WHERE operation = 'rewind'") == ("why",)
    assert json.loads(flow("history", id, "--json"))[0]["rewind"] == 0 and "(rewind 1)" not in flow("history", id)
    assert "completed (rewind 1)" in flow("history", id, "--forgotten")
