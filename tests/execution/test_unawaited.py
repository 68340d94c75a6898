"""Steps that are never awaited: one line in the log that names each, and nothing from Python beside it. About 3
seconds.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import pgflow
from pgflow.testing import run


@pgflow.signal
@dataclass
class Approved:
    by: str


@pgflow.message
@dataclass
class Told:
    text: str


executed: list[int] = []


@pgflow.activity
async def charge(ctx: pgflow.ActivityContext, cents: int) -> int:
    executed.append(cents)
    return cents


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def broken(ctx: pgflow.ActivityContext) -> None:
    raise ValueError("broken")


@pgflow.workflow
async def other(ctx: pgflow.WorkflowContext) -> None: ...


async def body(ctx: pgflow.WorkflowContext, state: Any = None) -> Any:
    return pgflow.Break(await ctx.activity(charge, 1))


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Python itself has nothing to say, also when everything has been collected."""
    executed.clear()
    gc.collect()  # what tests before this one left behind
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        yield
        gc.collect()
    assert [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)] == []


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the execution has warned of; what has failed leaves lines of its own."""
    failures = ("pgflow.activity", "pgflow.workflow")
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and r.name not in failures]


FORGOTTEN: list[tuple[str, Callable[[Any], Any]]] = [
    ('activity "charge" at {2}', lambda ctx: ctx.activity(charge, 1)),
    ("sleep at {2}", lambda ctx: ctx.sleep(1)),
    ('listen "approved" at {2}', lambda ctx: ctx.listen(Approved)),
    ('listen "approved" at {2}', lambda ctx: ctx.listen_many(Approved, timeout=1)),
    ('signal_send "approved" at {2}', lambda ctx: ctx.signal(Approved("eva"), workflow=other, missing_ok=True)),
    ('message_send "told" at {2}', lambda ctx: ctx.publish(Told("it"))),
    ('child_workflow "other" at {2}', lambda ctx: ctx.dispatch(other)),
    ('child_workflow "other" at {2}', lambda ctx: ctx.start(other)),
    ('loop "body" at {2}', lambda ctx: ctx.loop(body)),
    ('branch "body" at {2}', lambda ctx: ctx.branch(body)),
    ('branch "other" at {2}', lambda ctx: ctx.inline(other)),
    ("timeout at {2} was called and never entered", lambda ctx: ctx.timeout(60)),
    ("ctx.check_version(2)", lambda ctx: ctx.check_version(2)),
    ("ctx.removed('sleep', '')", lambda ctx: ctx.removed("sleep")),
    ('activity "charge" at {2}', lambda ctx: ctx.join(ctx.activity(charge, 1))),
    ('branch "body" at {2}', lambda ctx: ctx.join(body)),
]


@pytest.mark.parametrize(("named", "call"), FORGOTTEN, ids=[case[0] for case in FORGOTTEN])
def test_one_line_names_it(caplog: pytest.LogCaptureFixture, named: str, call: Callable[[Any], Any]) -> None:
    @pgflow.workflow
    async def forgetful(ctx: pgflow.WorkflowContext) -> int:
        paid = await ctx.activity(charge, 2)
        call(ctx)
        await ctx.sleep(60)  # given up, and taken again with a replay
        return paid

    ran = run(forgetful)
    assert ran.output == 2 and executed == [2]
    (line,) = told(caplog)
    assert 'workflow "forgetful"' in line and named in line
    assert f"({__file__}:" in line and "in <lambda>" in line or "never entered" in line


def test_bodies_within(caplog: pytest.LogCaptureFixture) -> None:
    """A branch, and a loop's turns: in each the same, told once; and a replay does not tell it again."""

    async def forgets(ctx: pgflow.WorkflowContext) -> None:
        ctx.activity(charge, 1)  # type: ignore[unused-coroutine]  # what the worker is to tell

    async def turn(ctx: pgflow.WorkflowContext, n: int) -> Any:
        ctx.sleep(1)  # type: ignore[unused-coroutine]  # what the worker is to tell
        await ctx.activity(charge, n)
        return pgflow.Break(n) if n == 30 else pgflow.Continue(n + 1)

    @pgflow.workflow
    async def forgetful(ctx: pgflow.WorkflowContext) -> int:
        await ctx.branch(forgets)
        await ctx.sleep(60)
        result = await ctx.loop(turn, 0)
        await ctx.sleep(60)
        return int(result)

    assert run(forgetful).output == 30 and executed == list(range(31))
    lines = told(caplog)
    assert len(lines) == 2 and 'activity "charge" at {1, 1}' in lines[0] and "sleep at {3, 1, 1}" in lines[1]


async def leaves_by_an_error(ctx: Any) -> None:
    steps = [ctx.activity(charge, 1), ctx.sleep(1)]
    await ctx.activity(broken)
    await asyncio.gather(*steps)


async def gathers_what_cannot_be(ctx: Any) -> None:
    await asyncio.gather(ctx.activity(charge, 1), ctx.activity(charge, "one", "two"))


async def closes(ctx: Any) -> None:
    ctx.activity(charge, 1).close()


async def awaits_later(ctx: Any) -> Any:
    step = ctx.activity(charge, 1)
    await ctx.sleep(60)
    return await step


async def leaves_a_task(ctx: Any) -> None:
    asyncio.get_running_loop().create_task(ctx.activity(charge, 1))


async def leaves_a_task_to_a_branch(ctx: Any) -> None:
    made: list[Any] = []

    async def closure(inner: Any) -> None:
        made.append(asyncio.get_running_loop().create_task(inner.sleep(60)))

    await ctx.branch(closure)
    try:
        await made[0]
    except asyncio.CancelledError:
        await ctx.activity(charge, 7)


async def keeps_it_beyond_its_branch(ctx: Any) -> None:
    kept: list[Any] = []

    async def closure(inner: Any) -> None:
        kept.append(inner.sleep(60))

    await ctx.branch(closure)
    try:
        await kept[0]
    except asyncio.CancelledError:
        await ctx.activity(charge, 7)


async def loses_it_to_a_deadline(ctx: Any) -> None:
    try:
        async with ctx.timeout(1):
            ctx.activity(charge, 1)
            await ctx.sleep(60)
    except TimeoutError:
        await ctx.activity(charge, 7)


@pytest.mark.parametrize(
    ("code", "done"),
    [
        (leaves_by_an_error, []), (gathers_what_cannot_be, []), (closes, []), (awaits_later, [1]), (leaves_a_task, []),
        (leaves_a_task_to_a_branch, [7]), (keeps_it_beyond_its_branch, [7]), (loses_it_to_a_deadline, [7]),
    ],
)  # fmt: skip
def test_what_is_not_forgotten(
    caplog: pytest.LogCaptureFixture, code: Callable[[Any], Awaitable[Any]], done: list[int]
) -> None:
    """An error came between, or the code still has it: nothing is told, and it is what it was."""

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> None:
        await code(ctx)

    ran = run(flow)
    assert ran.status in ("completed", "failed")
    del ran
    assert told(caplog) == [] and executed == done


async def test_in_a_worker(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """With the workflow's first line, since Python does not keep the call's."""

    @pgflow.workflow
    async def forgetful(ctx: pgflow.WorkflowContext) -> str:
        ctx.activity(charge, 1)  # type: ignore[unused-coroutine]  # what the worker is to tell
        await ctx.listen(Approved)
        return "done"

    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=[forgetful]):
            handle = await client.dispatch(forgetful)
            while (await handle.info()).status != "sleeping":
                await asyncio.sleep(0.01)
        caplog.clear()
        async with pgflow.Worker(dsn, workflows=[forgetful]):  # left memory meanwhile
            await client.signal(Approved("eva"), to=handle.id)
            assert await handle.output(30) == "done"
        (line,) = told(caplog)
        first = forgetful.fn.__code__.co_firstlineno
        assert str(handle.id) in line and 'activity "charge" at {1}' in line and f"{__file__}:{first} or below" in line
        assert executed == []
        assert [event.status for event in await client.history(handle.id)] == ["abandoned", "completed"]
