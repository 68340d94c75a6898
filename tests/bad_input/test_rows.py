"""Rows written by SQL around every check: what cannot be read harms nobody else, and can still be looked at. About 10
seconds.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import pgflow
from pgflow.cli import main
from pgflow.testing import replay

DIGITS, BRACKETS = "9" * 5000, "[" * 3000 + "]" * 3000


@pgflow.signal
@dataclass
class Poke:
    n: int


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def remember(ctx: pgflow.ActivityContext) -> int:
    ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    return int(ctx.state["seen"])


@pgflow.workflow
async def steps(ctx: pgflow.WorkflowContext, n: Any = None) -> int:
    seen = await ctx.activity(remember)
    await ctx.sleep(0.01)
    poke = await ctx.listen(Poke, timeout=0.01)
    return seen + (poke.n if poke else 0)


WORKFLOWS = [steps]

Change = Callable[["Hostile"], object]


class Hostile:
    """One workflow, and SQL about it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.id: uuid.UUID
        (self.id,) = connection.execute("SELECT pgflow.dispatch('steps', '{}')").fetchone() or (uuid.UUID(int=0),)

    def set(self, table: str, **values: str) -> Hostile:
        """Set columns to SQL expressions."""
        key = "id" if table == "workflows" else "workflow_id"
        each = [f"{name} = {value}" for name, value in values.items()]
        self.connection.execute(f"UPDATE pgflow.{table} SET {', '.join(each)} WHERE {key} = %s", [self.id])
        return self

    def event(self, **values: str) -> Hostile:
        """Add a row of history as if it had been claimed before."""
        given = {
            "location": "'1'",
            "kind": "'activity'",
            "name": "'remember'",
            "status": "'completed'",
            "version": "1",
        } | values
        given["workflow_id"] = "%s"
        text = f"INSERT INTO pgflow.events ({', '.join(given)}) VALUES ({', '.join(given.values())})"
        self.connection.execute(text, [self.id])
        self.set("runs", epoch="1")
        return self

    def poke(self, body: str) -> Hostile:
        """Send a signal."""
        self.connection.execute("SELECT pgflow.signal(%s::uuid, 'poke', %s::json)", [self.id, body])
        return self


def text(value: str) -> str:
    return f"'{value}'"


HOSTILE: dict[str, Change] = {
    "a deep input": lambda it: it.set("workflows", input=text('{"n":' + BRACKETS + "}") + "::json"),
    "a long number in the input": lambda it: it.set("workflows", input=text('{"n":' + DIGITS + "}") + "::json"),
    "a huge number in the input": lambda it: it.set("workflows", input="""'{"n":1e99999}'::json"""),
    "a NUL in the input": lambda it: it.set("workflows", input=r"""'{"n":"\u0000"}'::json"""),
    "a lone surrogate in the input": lambda it: it.set("workflows", input=r"""'{"n":"\ud800"}'::json"""),
    "an input that is no object": lambda it: it.set("workflows", input="'[1]'::json"),
    "deep tags": lambda it: it.set("workflows", tags=text('{"n":' + BRACKETS + "}") + "::jsonb"),
    "a long number in the tags": lambda it: it.set("workflows", tags=text('{"n":' + DIGITS + "}") + "::jsonb"),
    "tags that are no object": lambda it: it.set("workflows", tags="'[1,2]'::jsonb"),
    "large tags": lambda it: it.set("workflows", tags=text('{"n":"' + "x" * 1_000_000 + '"}') + "::jsonb"),
    "the long number of tags given": lambda it: (
        it.set("workflows", tags_given=text('{"n":' + DIGITS + "}") + "::jsonb"),
        it.event(),
    ),
    "deep state": lambda it: (
        it.set("workflows", state=text('{"n":' + BRACKETS + "}") + "::json"),
        it.set("runs", epoch="1"),
    ),
    "a state that is no object": lambda it: (it.set("workflows", state="'7'::json"), it.set("runs", epoch="1")),
    "an endless dispatch": lambda it: it.set("workflows", created_at="'infinity'"),
    "a dispatch before the calendar": lambda it: it.set("workflows", created_at="'4000-01-01 BC'"),
    "a dispatch after the calendar": lambda it: it.set("workflows", created_at="'294276-12-31'"),
    "a due moment before the calendar": lambda it: it.set("runs", wake_at="'4000-01-01 BC'"),
    "a due moment at its start": lambda it: it.set("runs", wake_at="'0001-01-02 00:00:00+00'"),
    "a due moment that never comes": lambda it: it.set("runs", wake_at="'infinity'", status="'sleeping'"),
    "a moment that never was": lambda it: it.set("runs", wake_at="'-infinity'"),
    "places that are none": lambda it: (it.set("workflows", cancellations="ARRAY[NULL]::bigint[]"), it.event()),
    "a row at no location": lambda it: it.event(location="'zzz'", output="'1'::json", seq="1"),
    "a row at an empty location": lambda it: it.event(location="''", output="'1'::json", seq="1"),
    "a row at a long location": lambda it: it.event(location=text(",".join(["1"] * 400)), output="'1'::json", seq="1"),
    "a row of digits": lambda it: it.event(location=text("z" + "9" * 2000), output="'1'::json", seq="1"),
    "a row of an unknown kind": lambda it: it.event(kind="'teleport'"),
    "a row of an unknown status": lambda it: it.event(status="'maybe'", output="'1'::json"),
    "a row of a version below all": lambda it: it.event(version="-5"),
    "a row without an order": lambda it: it.event(output="'1'::json"),
    "a row before the order": lambda it: it.event(output="'1'::json", seq="-2147483648"),
    "a row at the end of the order": lambda it: it.event(output="'1'::json", seq="2147483647"),
    "a deep result": lambda it: it.event(seq="1", output=text(BRACKETS) + "::json"),
    "a long number as result": lambda it: it.event(seq="1", output=text(DIGITS) + "::json"),
    "an error that is none": lambda it: it.event(seq="1", status="'failed'", error="'7'::json"),
    "a deep error": lambda it: it.event(seq="1", status="'failed'", error=text(BRACKETS) + "::json"),
    "a row that ended in infinity": lambda it: it.event(seq="1", output="'1'::json", completed_at="'infinity'"),
    "a row that began before the calendar": lambda it: it.event(
        seq="1", output="'1'::json", created_at="'4000-01-01 BC'"
    ),
    "a retry that is never due": lambda it: it.event(status="'pending'", wake_at="'infinity'"),
    "a retry that was due before the calendar": lambda it: it.event(status="'pending'", wake_at="'-infinity'"),
    "heartbeat details in depth": lambda it: it.event(status="'pending'", output=text(BRACKETS) + "::json"),
    "a removed step's mark": lambda it: it.event(kind="'removed'", input=text(DIGITS) + "::json"),
    "a loop of nothing": lambda it: it.event(
        kind="'loop'", status="'pending'", loop_progress="-1", loop_state="'7'::json"
    ),
    "a deep signal": lambda it: it.poke('{"n":' + BRACKETS + "}"),
    "a long number in a signal": lambda it: it.poke('{"n":' + DIGITS + "}"),
    "no epoch left": lambda it: it.set("runs", epoch="2147483647"),
    "no place left in the mailbox": lambda it: (it.set("runs", mailbox="9223372036854775807"), it.poke('{"n":1}')),
    "an unknown status": lambda it: it.set("runs", status="'levitating'"),
}


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def look(dsn: str, ids: list[uuid.UUID]) -> None:
    """Everybody can look at everything."""
    with pgflow.SyncClient(dsn) as client:
        found = {one.id: one for one in client.list(limit=1000)}
        assert found.keys() >= set(ids)
        for id in ids:
            assert client.get(id).name == "steps"
            client.history(id, forgotten=True)
            replay_or_refuse(client.export(id))
    environment = {"PGFLOW_DATABASE_URL": dsn}
    runner = CliRunner()
    for arguments in (["workflow", "list", "--limit", "1000"], ["workflow", "list", "--json", "--limit", "1000"]):
        ran = runner.invoke(main, arguments, env=environment)
        assert ran.exit_code == 0, (ran.output, ran.exception)
        assert str(ids[0]) in ran.output
    for id in ids:
        for arguments in (["show"], ["show", "--json"], ["history"], ["history", "--json"], ["export"]):
            ran = runner.invoke(main, ["workflow", *arguments, str(id)], env=environment)
            assert ran.exit_code == 0, (arguments, ran.output[-300:], ran.exception)
            ran.output.encode()
            if "--json" in arguments or "export" in arguments:
                json.loads(ran.output)


def replay_or_refuse(document: str) -> None:
    """A replay ends, by whatever the history is worth."""
    try:
        replay(steps, document)
    except (pgflow.PgflowError, ValueError, TypeError, AttributeError):
        pass


async def test_nobody_else_is_harmed(dsn: str, connection: psycopg.Connection[Any]) -> None:
    hostile = {}
    for what, change in HOSTILE.items():
        hostile[what] = it = Hostile(connection)
        change(it)
    ids = [it.id for it in hostile.values()]
    look(dsn, ids)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, poll=0.1, cached=0) as worker:
        for number in range(20):
            handle = await client.dispatch(steps)
            assert await handle.output(60) == 1, number
        never = {
            "a due moment that never comes",
            "a moment that never was",
            "an unknown status",
            "a retry that is never due",
            "a due moment before the calendar",
        }
        for what, it in hostile.items():
            if what not in never:
                try:
                    await client.output(it.id, timeout=60)
                except (pgflow.WorkflowFailed, pgflow.SerializationError):
                    pass
                except TimeoutError:
                    pytest.fail(f"{what}: {(await client.get(it.id)).status}")
        assert worker.id is not None
        assert await (await client.dispatch(steps)).output(60) == 1
    look(dsn, ids)
    with pgflow.SyncClient(dsn) as sync:
        failed = {what: sync.get(it.id).error for what, it in hostile.items()}
    for what in (
        "deep tags",
        "a long number in the tags",
        "tags that are no object",
        "a row of an unknown status",
        "a row of digits",
    ):
        error = failed[what]
        assert error is not None and "Mend" in error["message"], (what, error)
