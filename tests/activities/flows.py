"""Transactional activities of the tests; a process of its own runs them too.

PGFLOW_DATABASE_URL=... python -m tests.activities.process POINT
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg

import pgflow

TABLES = """
CREATE TABLE effects (what text NOT NULL, attempt int NOT NULL, by_async boolean NOT NULL);
CREATE TABLE strict (what text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED);
"""
ADD = "INSERT INTO pgflow.effects VALUES (%s, %s, %s)"
QUICK = pgflow.RetryPolicy(max_attempts=3, initial=0.01)
ONCE = pgflow.RetryPolicy(max_attempts=1)


@pgflow.activity(transactional=True, retry=QUICK)
async def book(ctx: pgflow.ActivityContext, what: str, fail: int = 0) -> str:
    """Leaves an effect; fails the first `fail` times."""
    await ctx.connection.execute(ADD, [what, ctx.attempt, True])
    ctx.state[what] = ctx.attempt
    if ctx.attempt <= fail:
        raise ConnectionError("not yet")
    return f"{what} booked"


@pgflow.activity(transactional=True, retry=QUICK)
def book_in_thread(ctx: pgflow.ActivityContext, what: str, fail: int = 0) -> str:
    ctx.connection.execute(ADD, [what, ctx.attempt, False])
    ctx.state[what] = ctx.attempt
    if ctx.attempt <= fail:
        raise ConnectionError("not yet")
    return f"{what} booked"


@pgflow.activity(transactional=True, retry=QUICK, timeout=None)
async def book_and_wait(ctx: pgflow.ActivityContext, what: str) -> str:
    """Between its effect and its end it waits until the test lets go of an advisory lock."""
    await ctx.connection.execute(ADD, [what, ctx.attempt, True])
    await ctx.connection.execute("SELECT pg_advisory_xact_lock(7)")
    return f"{what} booked"


@pgflow.activity(transactional=True, retry=QUICK, timeout=None)
def book_and_wait_in_thread(ctx: pgflow.ActivityContext, what: str) -> str:
    ctx.connection.execute(ADD, [what, ctx.attempt, False])
    ctx.connection.execute("SELECT pg_advisory_xact_lock(7)")
    return f"{what} booked"


@pgflow.activity
async def plain(ctx: pgflow.ActivityContext, value: int) -> int:
    ctx.state["plain"] = ctx.state.get("plain", 0) + 1
    return value


@pgflow.activity(transactional=True, retry=ONCE, timeout=0.5)
async def too_late(ctx: pgflow.ActivityContext) -> None:
    await ctx.connection.execute(ADD, ["too late", ctx.attempt, True])
    await ctx.connection.execute("SELECT pg_sleep(600)")


@pgflow.activity(transactional=True, retry=ONCE, timeout=0.5)
def too_late_in_thread(ctx: pgflow.ActivityContext) -> None:
    ctx.connection.execute(ADD, ["too late", ctx.attempt, False])
    ctx.connection.execute("SELECT pg_sleep(600)")


@pgflow.activity(transactional=True, retry=QUICK)
async def duplicate(ctx: pgflow.ActivityContext) -> int:
    """What the database refuses at the commit alone; the second attempt does better."""
    await ctx.connection.execute("INSERT INTO pgflow.strict VALUES ('one')")
    if ctx.attempt == 1:
        await ctx.connection.execute("INSERT INTO pgflow.strict VALUES ('one')")
    return ctx.attempt


@pgflow.activity(transactional=True, retry=QUICK)
async def misuse(ctx: pgflow.ActivityContext, statements: list[str]) -> None:
    await ctx.connection.execute(ADD, ["misused", ctx.attempt, True])
    for statement in statements:
        try:
            await ctx.connection.execute(statement)
        except psycopg.Error:
            pass


@pgflow.activity(transactional=True, retry=ONCE)
def call_method(ctx: pgflow.ActivityContext, name: str) -> None:
    ctx.connection.execute(ADD, ["method", ctx.attempt, False])
    getattr(ctx.connection, name)()


@pgflow.activity(transactional=True)
async def savepoint(ctx: pgflow.ActivityContext) -> int:
    """A statement may fail inside a block of its own."""
    connection = ctx.connection
    for what in ("one", None):
        try:
            async with connection.transaction():
                await connection.execute(ADD, [what, ctx.attempt, True])
        except psycopg.errors.NotNullViolation:
            await connection.execute(ADD, ["two", ctx.attempt, True])
    return ctx.attempt


@pgflow.activity(transactional=True)
async def leave_things(ctx: pgflow.ActivityContext) -> int:
    """Settings, locks and tables of the session, and what an activity may set on the connection object."""
    connection: psycopg.AsyncConnection[Any] = ctx.connection
    await connection.execute("CREATE TEMP TABLE left_over (a int)")
    await connection.execute("SET work_mem = '7MB'")
    await connection.execute("LISTEN something")
    await connection.execute("SELECT pg_advisory_lock(8)")
    connection.row_factory = psycopg.rows.dict_row
    return connection.info.backend_pid


@pgflow.activity(transactional=True)
async def find_things(ctx: pgflow.ActivityContext) -> list[Any]:
    connection: psycopg.AsyncConnection[Any] = ctx.connection
    cursor = await connection.execute(
        "SELECT to_regclass('left_over') IS NULL, current_setting('work_mem') <> '7MB', "
        "(SELECT count(*) FROM pg_listening_channels()), "
        "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
    )
    return [connection.info.backend_pid, *(await cursor.fetchone() or ())]


@pgflow.activity(transactional=True)
async def unstorable(ctx: pgflow.ActivityContext, where: str) -> Any:
    await ctx.connection.execute(ADD, ["unstorable", ctx.attempt, True])
    if where == "state":
        ctx.state["key"] = object()
        return None
    return object()


@pgflow.activity(transactional=True, retry=QUICK)
async def book_on_time(ctx: pgflow.ActivityContext) -> None:
    """Ends when the test says so."""
    await ctx.connection.execute(ADD, ["on time", ctx.attempt, True])
    await end_now.wait()
    has_ended.set()


@pgflow.activity
async def end_first(ctx: pgflow.ActivityContext) -> None:
    first_ended.set()


end_now, has_ended, first_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()


@pgflow.signal
@dataclass
class Go:
    """Go on."""


clients: list[pgflow.Client] = []


@pgflow.activity(transactional=True, retry=QUICK)
async def start_another(ctx: pgflow.ActivityContext) -> None:
    """A workflow that exists when, and only when, this is done; the first attempt fails after starting one."""
    await clients[0].dispatch(booking, tags={"attempt": ctx.attempt}, connection=ctx.connection)
    if ctx.attempt == 1:
        raise ConnectionError("not yet")


@pgflow.activity
async def without(ctx: pgflow.ActivityContext) -> None:
    await ctx.connection.execute("SELECT 1")


@pgflow.workflow
async def booking(ctx: pgflow.WorkflowContext, fail: int = 0, thread: bool = False) -> list[Any]:
    activity = book_in_thread if thread else book
    return [await ctx.activity(plain, 1), await ctx.activity(activity, "room", fail), await ctx.activity(plain, 2)]


@pgflow.workflow
async def waiting(ctx: pgflow.WorkflowContext, thread: bool = False) -> list[Any]:
    activity = book_and_wait_in_thread if thread else book_and_wait
    return [await ctx.activity(plain, 1), await ctx.activity(activity, "room"), await ctx.activity(plain, 2)]


@pgflow.workflow
async def together(ctx: pgflow.WorkflowContext, number: int) -> list[Any]:
    """Transactional and plain activities at once, sleeps between them, in branches too."""

    async def branch(ctx: pgflow.WorkflowContext) -> list[Any]:
        return [await ctx.activity(plain, 7), await ctx.activity(book, "branch"), await ctx.activity(plain, 8)]

    steps: list[Any] = []
    for index in range(number):
        steps += [ctx.activity(plain, index), ctx.activity(book, f"a{index}", index % 2), ctx.sleep(0.01)]
        steps.append(ctx.activity(book_in_thread, f"t{index}"))
    return await ctx.join(*steps, branch)


@pgflow.workflow
async def turning(ctx: pgflow.WorkflowContext, turns: int) -> int:
    """The first row of each turn is a transactional activity's."""

    async def turn(ctx: pgflow.WorkflowContext, index: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        await ctx.activity(book, str(index))
        return pgflow.Continue(index + 1) if index + 1 < turns else pgflow.Break(index + 1)

    return await ctx.loop(turn, 0, commit_interval=2, keep_iterations=3)


@pgflow.workflow
async def one(ctx: pgflow.WorkflowContext, name: str, arguments: list[Any]) -> Any:
    return await ctx.activity(ACTIVITIES[name], *arguments)


@pgflow.workflow
async def two(ctx: pgflow.WorkflowContext) -> list[Any]:
    """The one that is called first waits for the test."""
    return await ctx.join(ctx.activity(book_and_wait, "first"), ctx.activity(book, "second"))


@pgflow.activity
async def plain_on_time(ctx: pgflow.ActivityContext) -> None:
    ctx.state["plain"] = True
    await end_now.wait()
    has_ended.set()


@pgflow.workflow
async def beside(ctx: pgflow.WorkflowContext) -> bool:
    """Whether the transactional one of two succeeded."""
    found = await asyncio.gather(ctx.activity(book, "room"), ctx.activity(plain_on_time), return_exceptions=True)
    return bool(found[0] == "room booked")


@pgflow.workflow
async def tidy(ctx: pgflow.WorkflowContext) -> list[Any]:
    return [await ctx.activity(leave_things), *await ctx.activity(find_things)]


@pgflow.workflow
async def impatient(ctx: pgflow.WorkflowContext, lets_go: bool) -> list[bool]:
    """Goes on with the first result; without the transactional one, or (`lets_go`) letting its body end meanwhile."""

    async def first(ctx: pgflow.WorkflowContext) -> list[bool]:
        steps = [asyncio.ensure_future(ctx.activity(book_on_time)), asyncio.ensure_future(ctx.activity(end_first))]
        done, pending = await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
        for task in pending if not lets_go else ():
            task.cancel()
        return [step in done for step in steps]

    found = await ctx.branch(first)
    await ctx.listen(Go)
    return found


ACTIVITIES: dict[str, Any] = {
    activity.name: activity
    for activity in (
        too_late,
        too_late_in_thread,
        duplicate,
        misuse,
        call_method,
        savepoint,
        unstorable,
        start_another,
        without,
    )
}
ALL: list[pgflow.Workflow[Any, Any]] = [booking, waiting, together, turning, one, two, beside, tidy, impatient]
