"""`pgflow workflow`: tables for people, JSON for programs, and nothing is changed."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result

from pgflow.cli import find, main, watch
from pgflow.store.queries import listing
from tests.schema.sample import Sample, fill


@pytest.fixture(scope="module")
def filled(server_dsn: str, template: str) -> Any:
    """A database in which something of everything is going on."""
    from tests import databases

    with databases.database(server_dsn, template) as dsn:
        yield dsn, fill(dsn)


class Command:
    """`pgflow workflow` on one database."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def run(self, *arguments: Any, code: int = 0) -> Result:
        environment = {"PGFLOW_DATABASE_URL": self.dsn, "PGFLOW_SCHEMA": None}
        result = CliRunner().invoke(main, ["workflow", *map(str, arguments)], env=environment, prog_name="pgflow")
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    def text(self, *arguments: Any, code: int = 0) -> str:
        return self.run(*arguments, code=code).output

    def json(self, *arguments: Any) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture
def workflow(filled: tuple[str, Sample]) -> Command:
    return Command(filled[0])


@pytest.fixture
def sample(filled: tuple[str, Sample]) -> Sample:
    return filled[1]


def ids(found: list[dict[str, Any]]) -> set[str]:
    return {one["id"] for one in found}


def test_list(workflow: Command, sample: Sample) -> None:
    """The youngest first; ids are whole even where the table is wide."""
    found = workflow.json("list")
    assert ids(found) > set(map(str, sample)) and len(found) == 10
    moments = [one["created_at"] for one in found]
    assert moments == sorted(moments, reverse=True)  # ids of one millisecond are in no order
    printed = workflow.text("list")
    lines = {line.split()[0]: line for line in printed.splitlines()[1:]}
    assert set(lines) == ids(found)
    assert "failed" in lines[str(sample.failed)] and "ConnectionError: the bank is closed" in lines[str(sample.failed)]
    assert '{"customer": 7}' in lines[str(sample.running)]
    assert "waits for approved, refused" in lines[str(sample.listening)]
    assert "; wakes" not in printed and "wakes 2" in lines[str(sample.sleeping)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--name", "collect"], {"looping"}),
        (["--status", "failed"], {"failed"}),
        (["--status", "completed", "--name", "checkout"], {"completed"}),
        (["--status", "completed", "--name", "collect"], set()),
        (["--name", "checkout", "--status", "pending", "--tag", "customer=7"], {"pending"}),
        (["--tag", 'customer="7"'], set()),
        (["--tag", "customer=seven"], set()),
        (["--queue", "nowhere"], set()),
        (["--status", "failed,completed"], {"failed", "completed"}),
        (["--status", "failed", "--status", "completed", "--name", "checkout"], {"failed", "completed"}),
        (["--error-type", "ConnectionError"], {"failed"}),
        (["--error-type", "OSError"], set()),
        (["--waiting-for", "refused"], {"listening"}),
        (["--ended-after", "5m"], {"failed", "completed"}),
        (["--ended-before", "2020-01-01"], set()),
        (["--created-after", "2020-01-01T10:00+02:00", "--status", "failed"], {"failed"}),
        (["--created-before", "90m"], set()),
    ],
)
def test_list_of_some(workflow: Command, sample: Sample, options: list[str], expected: set[str]) -> None:
    assert ids(workflow.json("list", *options)) == {str(getattr(sample, name)) for name in expected}


def test_list_of_children(workflow: Command, sample: Sample) -> None:
    assert ids(workflow.json("list", "--parent", sample.listening)) == {str(sample.child)}


def test_list_in_parts(workflow: Command) -> None:
    """The last line says how to go on."""
    everything = [one["id"] for one in workflow.json("list")]
    printed = workflow.text("list", "--limit", 4)
    said, _, cursor = printed.splitlines()[-1].rpartition(" ")
    assert said == "The first 4; go on with --after" and cursor.endswith(everything[3])
    for place in (("--after", cursor), ("--before", everything[3])):
        assert [one["id"] for one in workflow.json("list", *place)] == everything[4:]
    result = workflow.run("list", "--limit", 4, "--json")
    assert [one["id"] for one in json.loads(result.stdout)] == everything[:4]
    assert json.loads(result.stderr) == {"cursor": cursor, "short": False}


def test_count(workflow: Command) -> None:
    assert workflow.text("count", "--status", "failed,completed") == "2\n"
    first = workflow.run("count", "--limit", 4)
    assert first.stdout == "4 or more\n" and first.stderr.startswith("Count on with --after ")
    found = workflow.json("count", "--limit", 4)
    assert found["count"] == 4 and found["more"]
    assert workflow.json("count", "--after", found["cursor"]) == {"count": 6, "more": False, "cursor": None}


def test_a_page_that_is_short(workflow: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, also where nothing was found, and how to go on."""
    monkeypatch.setattr(listing, "SCAN", 2)
    monkeypatch.setattr(listing, "FEW", -1)
    asked = ("list", "--queue", "default", "--tag", "customer=8", "--limit", 1)
    said, _, cursor = workflow.text(*asked).splitlines()[-1].rpartition(" ")
    assert said == "There may be more among those not looked at yet; go on with --after"
    result = workflow.run(*asked, "--json", "--after", cursor)
    assert json.loads(result.stdout) == [] and json.loads(result.stderr)["short"]
    assert workflow.text("count", *asked[1:]).startswith("0 or more\n")


def test_a_list_that_is_watched(workflow: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is printed again when it has changed."""
    looks = 0

    def pause(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            with psycopg.connect(workflow.dsn, autocommit=True) as connection:
                connection.execute("SELECT pgflow.dispatch('watched')")
        if looks == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(find, "watched", partial(watch.watched, pause=pause))
    try:
        printed = workflow.text("list", "--watch", "--name", "watched")
    finally:
        with psycopg.connect(workflow.dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM pgflow.runs WHERE name = 'watched'")
            connection.execute("DELETE FROM pgflow.workflows WHERE name = 'watched'")
    assert looks == 4 and printed.count("dispatched") == 2 and printed.count("pending") == 1


def test_show(workflow: Command, sample: Sample) -> None:
    """All about one, and the steps that it waits for."""
    found = workflow.json("show", sample.running)
    assert (found["name"], found["status"], found["tags"]) == ("checkout", "running", {"customer": 7})
    assert found["input"] == {"order": {"number": 7}}
    (waits,) = found["pending"]
    assert (waits["location"], waits["kind"], waits["name"], waits["attempts"]) == ("{2}", "activity", "charge", 2)
    assert waits["error"]["message"] == "the bank is closed" and waits["input"] == {"cents": 700}
    printed = workflow.text("show", sample.running)
    for expected in (str(sample.running), "running", '"number": 7', "pending steps", "charge", "the bank is closed"):
        assert expected in printed
    assert "approved, refused" in workflow.text("show", sample.listening)
    assert '"größe"' in workflow.text("show", sample.completed)
    assert "Traceback ..." in workflow.text("show", sample.failed)
    assert workflow.json("show", sample.completed)["pending"] == []
    assert workflow.json("show", sample.completed)["audit"] == []


def test_show_what_operators_did(workflow: Command, sample: Sample) -> None:
    (done,) = workflow.json("show", sample.sleeping)["audit"]
    assert [done[name] for name in ("operation", "actor", "reason")] == ["cancel", "kim", "it is of no use any more"]
    printed = workflow.text("show", sample.sleeping)
    assert "what operators did last" in printed and "it is of no use any more" in printed
    assert "operators" not in workflow.text("show", sample.completed)


def test_history(workflow: Command, sample: Sample) -> None:
    """Forgotten turns only when they are asked for, in their place."""
    found = workflow.json("history", sample.looping)
    assert [step["location"] for step in found] == ["{1}", "{1, 21, 1}", "{1, 21, 2}"]
    found = workflow.json("history", sample.looping, "--forgotten")
    assert [(step["location"], step["forgotten"]) for step in found] == [
        ("{1}", False),
        ("{1, 20, 1}", True),
        ("{1, 21, 1}", False),
        ("{1, 21, 2}", False),
    ]
    assert [step["iteration"] for step in found] == [0, 19, 20, 20]
    printed = workflow.text("history", sample.looping, "--forgotten")
    assert [line.split("  ")[0] for line in printed.splitlines()[1:]] == [
        "{1}",
        "{1, 20, 1}",
        "{1, 21, 1}",
        "{1, 21, 2}",
    ]
    assert workflow.json("history", sample.pending) == []


def test_history_that_is_cut(workflow: Command, sample: Sample) -> None:
    """Said beside the document, not in it."""
    result = workflow.run("history", sample.looping, "--limit", 2, "--json")
    assert len(json.loads(result.stdout)) == 2
    assert result.stderr == "There are more than 2 steps; --limit shows more.\n"
    assert workflow.run("history", sample.looping, "--limit", 3).stderr == ""


def test_texts_of_others_do_not_steer_the_terminal(workflow: Command, sample: Sample) -> None:
    printed = workflow.text("history", sample.listening)
    assert r"ask\x1b[31m" in printed and "\x1b" not in printed
    assert '"[bold]yes[/bold]"' in printed


def test_unknown_ids(workflow: Command) -> None:
    id = uuid4()
    for command in ("show", "history"):
        assert workflow.text(command, id, code=1) == f'Error: there is no workflow {id} in schema "pgflow"\n'
        assert "is not a valid UUID" in workflow.text(command, "seven", code=2)


def test_bad_options(workflow: Command) -> None:
    assert "'customer': expected NAME=VALUE" in workflow.text("list", "--tag", "customer", code=2)
    assert "'nonsense' is not one of 'pending'" in workflow.text("list", "--status", "nonsense", code=2)
    assert "--limit" in workflow.text("list", "--limit", 0, code=2)
    assert "'yesterday': expected a moment, such as" in workflow.text("list", "--ended-after", "yesterday", code=2)
    assert "'9' is not one of 'pending'" in workflow.text("count", "--status", "failed,9", code=2)
    assert "--limit" in workflow.text("count", "--limit", 0, code=2)
    assert "expected the cursor of a page" in workflow.text("list", "--after", "x", code=1)
    ranged = ("--created-after", "2026-01-02", "--created-before", "2026-01-01")
    assert "expected a range that ends after it begins" in workflow.text("count", *ranged, code=1)
    assert "expected a text" in workflow.text("list", "--name", "a\0b", code=1)


def test_a_database_that_does_not_fit(database_dsn: str) -> None:
    assert "Run `pgflow db upgrade" in Command(database_dsn).text("list", code=1)
    assert "the database cannot be reached" in Command("host=/nowhere").text("list", code=1)


def test_other_schemas(database_dsn: str) -> None:
    from pgflow.store.schema.migrations import migrate

    migrate(database_dsn, 'Our "Flows"')
    made = fill(database_dsn, 'Our "Flows"')
    command = Command(database_dsn)
    assert ids(command.json("list", "--schema", 'Our "Flows"', "--name", "remind")) == {str(made.sleeping)}
    assert len(command.json("history", made.looping, "--schema", 'Our "Flows"')) == 3


def test_nothing_is_changed(workflow: Command, sample: Sample) -> None:
    """Every command on a server that refuses to write."""
    reading = Command(psycopg.conninfo.make_conninfo(workflow.dsn, options="-c default_transaction_read_only=on"))
    reading.text("list", "--tag", "customer=7")
    for id in sample:
        reading.text("show", id)
        reading.text("history", id, "--forgotten")
