"""Code that changes under running workflows, on a real database: another worker with other code takes them over. About
5 seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import pgflow
from tests import waiting
from tests.versions.lives import Program

Context = pgflow.WorkflowContext
Turn = pgflow.Continue[int] | pgflow.Break[int]


@pgflow.signal
@dataclass
class Go:
    pass


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, what: str) -> str:
    return what


charge, fax, fraud_check = note.options(name="charge"), note.options(name="fax"), note.options(name="fraud_check")


@pgflow.workflow(name="order")
async def before(ctx: Context) -> list[Any]:
    async def pay(branch: Context) -> str:
        return await branch.activity(charge, "charged")

    async def turn(ctx: Context, n: int) -> Turn:
        await ctx.activity(note, f"turn {n}")
        await ctx.listen(Go)
        return pgflow.Continue(n + 1) if n < 4 else pgflow.Break(n)

    said = [await ctx.activity(fax, "faxed"), await ctx.branch(pay)]
    return [*said, await ctx.loop(turn, 1, commit_interval=2)]


@pgflow.workflow(name="order")
async def after(ctx: Context) -> list[Any]:
    async def pay(branch: Context) -> str:
        checked = await branch.v(2).activity(fraud_check, "checked")
        return f"{checked} {await branch.activity(charge, 'charged')}"

    async def turn(ctx: Context, n: int) -> Turn:
        await ctx.v(2).activity(note, f"first in turn {n}")
        await ctx.activity(note, f"turn {n}")
        await ctx.listen(Go)
        return pgflow.Continue(n + 1) if n < 4 else pgflow.Break(n)

    version = await ctx.check_version(2)
    await ctx.removed("activity", "fax")
    said = [version, await ctx.branch(pay)]
    return [*said, await ctx.loop(turn, 1, commit_interval=2)]


@pgflow.workflow(name="order")
async def broken(ctx: Context) -> None:
    await ctx.activity(fax, "faxed")
    await ctx.activity(charge, "charged")


async def told(client: pgflow.Client, handle: pgflow.WorkflowHandle[Any]) -> list[str]:
    history = await client.history(handle.id, forgotten=True)
    return [
        f"{event.location} "
        f"{event.name if event.kind == 'activity' else event.kind}{f' v{event.version}' if event.version > 1 else ''}"
        for event in history
    ]


def worker(dsn: str, program: Program) -> pgflow.Worker:
    return pgflow.Worker(dsn, workflows=[program])


async def asleep_in_the_second_turn(client: pgflow.Client, dsn: str) -> pgflow.WorkflowHandle[Any]:
    async with worker(dsn, before):
        handle = await client.dispatch(before)
        await client.signal(Go(), to=handle.id)

        async def reached() -> bool:
            waits = (await handle.info()).status == "sleeping"
            return waits and any(event.location == "{3, 2, 2}" for event in await client.history(handle.id))

        await waiting.until(reached)
    return handle


OLD_RUN = [
    "{1} fax",
    "{2} branch",
    "{2, 0.1} fraud_check v2",
    "{2, 1} charge",
    "{3} loop",
    "{3, 1, 1} note",
    "{3, 1, 2} listen",
    "{3, 2, 0.1} note v2",
    "{3, 2, 1} note",
    "{3, 2, 2} listen",
    "{3, 3, 1} note v2",
    "{3, 3, 2} note",
    "{3, 3, 3} listen",
    "{3, 4, 1} note v2",
    "{3, 4, 2} note",
    "{3, 4, 3} listen",
]


async def test_old_runs_continue_and_new_ones_take_the_new_path(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        old = await asleep_in_the_second_turn(client, dsn)
        async with worker(dsn, after):
            new = await client.dispatch(after)
            for handle, signals in ((old, 3), (new, 4)):
                for _ in range(signals):
                    await client.signal(Go(), to=handle.id)
            assert await old.output(20) == [1, "checked charged", 4]
            assert await new.output(20) == [2, "checked charged", 4]
        assert await told(client, old) == OLD_RUN
        assert (await told(client, new))[:6] == [
            "{1} version_check v2",
            "{2} removed",
            "{3} branch",
            "{3, 1} fraud_check v2",
            "{3, 2} charge",
            "{4} loop",
        ]
        events = await client.history(old.id)
        assert all(event.status == "completed" and event.attempts <= 1 for event in events)


async def test_a_refused_edit_writes_nothing_and_a_retry_under_mended_code_goes_on(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        old = await asleep_in_the_second_turn(client, dsn)
        before_it = await client.history(old.id, forgotten=True)
        signal = await client.signal(Go(), to=old.id)
        assert signal is not None
        async with worker(dsn, broken):
            with pytest.raises(pgflow.WorkflowFailed, match="HistoryDiverged"):
                await old.output(20)
        info = await old.info()
        assert info.error is not None and info.error["type"] == "HistoryDiverged"
        assert 'history diverged at {2}: the code expected activity "charge"' in info.error["message"]
        assert await client.history(old.id, forgotten=True) == before_it
        await client.retry(old.id)
        async with worker(dsn, after):
            for _ in range(2):
                await client.signal(Go(), to=old.id)
            assert await old.output(20) == [1, "checked charged", 4], (
                "the signal of before was not consumed by broken code"
            )
        assert await told(client, old) == OLD_RUN
