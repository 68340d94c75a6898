"""The commands that operate a workflow, with filters instead of an id."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_audit import Command


@pytest.fixture
def pgflow(dsn: str) -> Command:
    return Command(dsn)


def test_all_that_match(pgflow: Command) -> None:
    ids = [pgflow("workflow", "dispatch", "job", "--tags", json.dumps({"n": n % 2})) for n in range(4)]
    assert "would cancel: 2, refused: 0" in pgflow("workflow", "cancel", "--tag", "n=1", "--dry-run")
    assert "pause: 2, refused: 0" in pgflow("workflow", "pause", "--tag", "n=1", "--yes", "--reason", "why")
    document = json.loads(pgflow("workflow", "resume", "--name", "job", "--yes", "--json"))
    assert sorted(document["done"]) == sorted(ids[1::2]) and document["refused"] == {} and not document["more"]
    assert "would cancel: 4, refused: 0" in pgflow("workflow", "cancel", "--created-after", "1h", "--dry-run")
    assert "would cancel: 0, refused: 0" in pgflow("workflow", "cancel", "--created-before", "1h", "--dry-run")
    assert "cancel: 1, refused: 0" in pgflow("workflow", "cancel", "--name", "job", "--limit", "1", "--yes")
    told = pgflow("workflow", "retry", "--name", "job", "--status", "cancelled", "--yes", code=1)
    assert "retry: 0, refused: 1" in told and "expected a failed one" in told
    assert pgflow.ask("SELECT count(*) FROM pgflow.audit") == [(5,)]


def test_it_asks_before_many_are_changed(pgflow: Command) -> None:
    id = pgflow("workflow", "dispatch", "job")
    assert "terminate 1 workflow? [y/N]" in pgflow("workflow", "terminate", "--name", "job", code=1)
    assert pgflow.ask("SELECT status FROM pgflow.runs") == [("pending",)]
    assert pgflow("workflow", "terminate", id) == "it has been ended"
    assert pgflow("workflow", "terminate", id, code=1) == "it has ended already"
    assert "terminate: 0, refused: 0" in pgflow("workflow", "terminate", "--name", "job")


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry", "terminate"])
def test_wrong_usage(pgflow: Command, verb: str) -> None:
    id = pgflow("workflow", "dispatch", "job")
    assert "expected an ID, or which workflows" in pgflow("workflow", verb, code=2)
    assert "found both" in pgflow("workflow", verb, id, "--name", "job", code=2)
    assert "found both" in pgflow("workflow", verb, id, "--dry-run", code=2)
    assert "expected NAME=VALUE" in pgflow("workflow", verb, "--tag", "n", code=2)
    assert "Example:" in pgflow("workflow", verb, "--help")
    assert pgflow.ask("SELECT status FROM pgflow.runs") == [("pending",)]


def test_what_waits_is_changed(pgflow: Command) -> None:
    id = pgflow("workflow", "dispatch", "job")
    changes = ("--queue", "bulk", "--priority", "-1", "--run-at", "2040-01-01T03:00:00+00:00")
    assert pgflow("workflow", "update", id, *changes, "--reason", "makes way") == "it is changed"
    assert pgflow("workflow", "update", id, *changes, code=1) == "it has all that already"
    assert pgflow.ask("SELECT queue, priority, wake_at::text LIKE '2040-01-01 %' FROM pgflow.runs") == [
        ("bulk", -1, True)
    ]
    assert pgflow.ask("SELECT operation, reason, details->>'queue' FROM pgflow.audit") == [
        ("update", "makes way", "bulk")
    ]
    assert "--run-at" in pgflow("workflow", "update", id, "--run-at", "tomorrow", code=2)
    assert "nothing is given" in pgflow("workflow", "update", id, code=1)
    assert "Example:" in pgflow("workflow", "update", "--help")
