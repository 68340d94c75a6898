"""What a failure leaves in the log, and what a workflow's own lines say: fields, and silence on replay."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pgflow
from tests.waiting import status, until

ONCE = pgflow.RetryPolicy(max_attempts=1)
TWICE = pgflow.RetryPolicy(max_attempts=2, initial=0.01)


class Endless(Exception):
    """Nothing may format it but what bounds it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pgflow.signal
@dataclass
class Word:
    text: str


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def about(records: list[logging.LogRecord], logger: str) -> list[dict[str, Any]]:
    keys = ("workflow_id", "workflow", "location", "activity", "attempt")
    return [
        {"level": r.levelname, **{key: getattr(r, key) for key in keys if hasattr(r, key)}}
        for r in records
        if r.name == logger
    ]


async def test_a_failed_attempt_is_a_warning_and_a_failed_workflow_an_error(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    @pgflow.activity(retry=TWICE)
    async def charge(ctx: pgflow.ActivityContext) -> None:
        raise ValueError(f"no money {ctx.attempt}")

    @pgflow.workflow
    async def checkout(ctx: pgflow.WorkflowContext) -> None:
        await ctx.sleep(0)
        await ctx.activity(charge)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[checkout]):
        handle = await client.dispatch(checkout)
        with pytest.raises(pgflow.WorkflowFailed):
            await handle.output(20)
    of_all = {"workflow_id": str(handle.id), "workflow": "checkout"}
    of_step = {**of_all, "level": "WARNING", "location": "{2}", "activity": "charge"}
    assert about(caplog.records, "pgflow.activity") == [{**of_step, "attempt": 1}, {**of_step, "attempt": 2}]
    assert about(caplog.records, "pgflow.workflow") == [{**of_all, "level": "ERROR"}]
    first, last = (record for record in caplog.records if record.name == "pgflow.activity")
    assert "attempt 1 of 2" in first.message and "the next is due at 20" in first.message
    assert "no money 1" in first.message and "there is no further attempt" in last.message
    assert "raise ValueError" in logging.Formatter("%(message)s").format(first), "with its traceback"
    (failed,) = (record for record in caplog.records if record.name == "pgflow.workflow")
    assert "no money 2" in failed.message and "Traceback" in logging.Formatter("%(message)s").format(failed)


async def test_an_error_that_cannot_be_shown_is_logged_all_the_same(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    @pgflow.activity(retry=ONCE)
    async def charge(ctx: pgflow.ActivityContext) -> None:
        raise Endless

    @pgflow.workflow
    async def checkout(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(charge)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[checkout]):
        with pytest.raises(pgflow.WorkflowFailed):
            await (await client.dispatch(checkout)).output(20)
    assert [r.levelname for r in caplog.records if r.name in ("pgflow.activity", "pgflow.workflow")] == [
        "WARNING",
        "ERROR",
    ]
    assert all("Endless" in r.message for r in caplog.records if r.name in ("pgflow.activity", "pgflow.workflow"))


async def test_nothing_is_logged_of_what_is_well(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor of a cancelled workflow, whose attempt in flight has not failed."""
    begun = asyncio.Event()

    @pgflow.activity
    async def stay(ctx: pgflow.ActivityContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    @pgflow.workflow
    async def checkout(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(stay)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[checkout]):
        handle = await client.dispatch(checkout)
        await begun.wait()
        await client.cancel(handle.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(20)
    assert about(caplog.records, "pgflow.activity") == about(caplog.records, "pgflow.workflow") == []


async def test_a_workflows_own_lines_are_written_once(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """Through a sleep, a wait, a loop's turns and branches, each replayed by another worker."""

    async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int] | pgflow.Break[None]:
        ctx.logger.info("turn %d", n)
        await ctx.listen(Word)
        return pgflow.Break(None) if n == 1 else pgflow.Continue(n + 1)

    async def aside(ctx: pgflow.WorkflowContext) -> None:
        ctx.logger.info("aside before")
        await ctx.sleep(0.01)
        ctx.logger.info("aside after", extra={"more": 7})

    @pgflow.activity
    async def act(ctx: pgflow.ActivityContext) -> None:
        ctx.logger.warning("acting")

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> None:
        ctx.logger.info("begins")
        await ctx.join(aside, ctx.activity(act))
        ctx.logger.info("joined")
        await ctx.listen(Word)
        ctx.logger.info("heard")
        await ctx.loop(turn, 0)
        ctx.logger.info("ends")

    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(flow)
        for word in ["one", "two", "three", None]:
            async with pgflow.Worker(dsn, workflows=[flow]):
                if word is not None:
                    await status(client, handle, "sleeping")
                else:
                    await handle.output(20)
            if word is not None:
                await client.signal(Word(word), to=handle.id)
    own = [record for record in caplog.records if record.name == __name__]
    told = [record.message for record in own]
    assert sorted(told[1:4]) == ["acting", "aside after", "aside before"] and told.pop(0) == "begins"
    assert told[3:] == ["joined", "heard", "turn 0", "turn 1", "ends"]
    assert {record.workflow for record in own} == {"flow"}  # type: ignore[attr-defined]
    assert {record.workflow_id for record in own} == {str(handle.id)}  # type: ignore[attr-defined]
    by_text = {record.message: vars(record) for record in own}
    assert by_text["aside after"]["location"] == "{2}" and by_text["aside after"]["more"] == 7
    assert [by_text["acting"][key] for key in ("location", "activity", "attempt")] == ["{1}", "act", 1]
    assert "location" not in by_text["ends"]


async def test_a_filter_that_fails_harms_no_workflow(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    @pgflow.activity(retry=TWICE)
    async def charge(ctx: pgflow.ActivityContext) -> int:
        if ctx.attempt == 1:
            raise ValueError("no")
        return ctx.attempt

    @pgflow.workflow
    async def checkout(ctx: pgflow.WorkflowContext) -> int:
        return await ctx.activity(charge)

    def refuse(record: logging.LogRecord) -> bool:
        raise KeyError("tenant")

    logger = logging.getLogger("pgflow.activity")
    logger.addFilter(refuse)
    try:
        async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[checkout]):
            assert await (await client.dispatch(checkout)).output(20) == 2
    finally:
        logger.removeFilter(refuse)
    assert "KeyError: 'tenant'" in capsys.readouterr().err, "as the standard library does with a handler's error"


async def test_what_only_leaves_memory_says_nothing(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that stops closes the code: `finally` runs, but the workflow has not come to it."""
    loggers = []

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> None:
        loggers.append(ctx.logger)
        try:
            await ctx.sleep(3600)
        finally:
            ctx.logger.warning("left")

    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=[flow]):
            handle = await client.dispatch(flow)
            await status(client, handle, "sleeping")
        loggers[0].warning("kept from a run that is gone")
        assert [r.getMessage() for r in caplog.records if r.name == __name__] == []
        async with pgflow.Worker(dsn, workflows=[flow]):
            await client.cancel(handle.id)
            with pytest.raises(pgflow.WorkflowCancelled):
                await handle.output(20)
        assert [r.getMessage() for r in caplog.records if r.name == __name__] == ["left"]


async def test_what_else_is_said_of_a_workflow_has_its_fields(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A signal that does not fit, a workflow that was ended elsewhere."""

    @pgflow.activity
    async def stay(ctx: pgflow.ActivityContext) -> None:
        await asyncio.Event().wait()

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> None:
        await ctx.listen(Word)
        await ctx.activity(stay)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[flow]):
        handle = await client.dispatch(flow)
        await status(client, handle, "sleeping")
        with psycopg.connect(dsn, autocommit=True) as sql:
            sql.execute("SELECT pgflow.signal(%s::uuid, 'word', '{}')", [handle.id])
        await until(lambda: any("was set aside" in record.message for record in caplog.records), "the bad signal")
        await handle.signal(Word("go"))
        await until(lambda: _running(dsn), "the activity")
        await handle.terminate()
        await until(lambda: any("left this worker" in record.message for record in caplog.records), "the end")
    told = [record for record in caplog.records if record.name == "pgflow.execution"]
    assert len(told) >= 2
    for record in told:
        assert (record.workflow, record.workflow_id) == ("flow", str(handle.id))  # type: ignore[attr-defined]
    (aside,) = (record for record in told if "was set aside" in record.message)
    assert vars(aside)["location"] == "{1}"


def _running(dsn: str) -> bool:
    with psycopg.connect(dsn) as sql:
        return sql.execute("SELECT status = 'running' FROM pgflow.runs").fetchall() == [(True,)]
