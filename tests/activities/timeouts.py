"""Activities that take too long, for `test_timeouts.py` and for worker processes of it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pgflow

ONCE = pgflow.RetryPolicy(max_attempts=1)
ENDLESS = pgflow.RetryPolicy(max_attempts=1_000_000, initial=0.01, maximum=0.05)

told: dict[str, BaseException] = {}
"""What has ended the threads, by name."""
go_on: set[str] = set()
"""Which may end."""
attempts: dict[str, list[int]] = {}
"""Those that have begun in this process."""


def begin(ctx: pgflow.ActivityContext, name: str) -> None:
    attempts.setdefault(name, []).append(ctx.attempt)


@pgflow.activity(timeout=None, retry=ONCE)
async def hang(ctx: pgflow.ActivityContext, name: str) -> str:
    """Until it may end; without a heartbeat."""
    begin(ctx, name)
    while name not in go_on:
        await asyncio.sleep(0.005)
    return name


@pgflow.activity(timeout=None, retry=ONCE)
def hang_in_thread(ctx: pgflow.ActivityContext, name: str) -> str:
    """Until nobody waits any more; it asks only then."""
    begin(ctx, name)
    while name not in go_on:
        time.sleep(0.005)
    try:
        ctx.heartbeat()
    except pgflow.ActivityCancelled as error:
        told[name] = error
        raise
    return name


@pgflow.activity(timeout=None, retry=ONCE, transactional=True)
async def hang_in_transaction(ctx: pgflow.ActivityContext, name: str) -> str:
    await ctx.connection.execute("INSERT INTO pgflow.written VALUES (%s)", [name])
    return await hang(ctx, name)  # type: ignore[no-any-return]  # a part of this one


@pgflow.activity(retry=ENDLESS, timeout=None)
async def fail(ctx: pgflow.ActivityContext, name: str) -> str:
    begin(ctx, name)
    if name in go_on:
        return f"attempt {ctx.attempt}"
    raise ConnectionError(f"no {name}")


SORTS: dict[str, pgflow.Activity[[str], str]] = {
    "async": hang,
    "enduring": hang.options(retry=ENDLESS),
    "thread": hang_in_thread,
    "transactional": hang_in_transaction,
    "failing": fail,
}


@pgflow.workflow
async def bounded(
    ctx: pgflow.WorkflowContext, sort: str, name: str, silence: float | None = None, total: float | None = None
) -> str:
    activity = SORTS[sort].options(heartbeat_timeout=silence, total_timeout=total)
    return await ctx.activity(activity, name)


@pgflow.activity(heartbeat_timeout=0.2, total_timeout=3600, timeout=None)
async def declared(ctx: pgflow.ActivityContext) -> None:
    await asyncio.Event().wait()


beating = threading.Event()


@pgflow.activity(heartbeat_timeout=3600, timeout=None, retry=ONCE)
def beat(ctx: pgflow.ActivityContext) -> str:
    ctx.heartbeat()
    return "heard"


@pgflow.workflow
async def heard(ctx: pgflow.WorkflowContext) -> str:
    return await ctx.activity(beat)


ALL: list[pgflow.Workflow[Any, Any]] = [bounded, heard]
