"""The workflows of the storm: one that does whatever its plan says, however hostile, and one that only wants to reach
its end.

A plan is a list of acts; the errors of each are swallowed or not. A worker process runs these (`test_storm.py`).
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pgflow
from tests.bad_input.test_raising import ACTIVITIES, BODIES, MADE, calls, raises
from tests.worker import nursery


class Opaque:
    """No form in JSON."""


class Rude:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(5)

    def __repr__(self) -> str:
        raise GeneratorExit

    def __eq__(self, other: object) -> bool:
        raise KeyboardInterrupt

    def __hash__(self) -> int:
        return 1


@dataclass
class Fussy:
    """Cannot be made anew."""

    n: int

    def __post_init__(self) -> None:
        if self.n != 1:
            raise SystemExit(6)
        self.n = 2


def itself() -> Any:
    found: dict[str, Any] = {}
    found["self"] = [found]
    return found


def deep() -> Any:
    found: list[Any] = []
    for _ in range(5000):
        found = [found]
    return found


VALUES: dict[str, Callable[[], Any]] = {
    "object": Opaque,
    "rude": Rude,
    "a key": lambda: {Rude(): 1},
    "fussy": lambda: Fussy(1),
    "class": lambda: Opaque,
    "function": lambda: lambda: 1,
    "nan": lambda: math.nan,
    "infinity": lambda: math.inf,
    "digits": lambda: 10**5000,
    "huge": lambda: "🐘" * 300_000,
    "large": lambda: "x" * 200_000,
    "surrogate": lambda: "\ud800",
    "nul": lambda: "a\0b",
    "itself": itself,
    "deep": deep,
    "tuple": lambda: (1, 2),
    "set": lambda: {1, 2},
    "bytes": lambda: b"\xff",
    "naive": lambda: datetime(2030, 1, 1),
    "beyond": lambda: datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    "before": lambda: datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    "decimal": lambda: Decimal("NaN"),
    "deque": lambda: deque([1]),
    "generator": lambda: (n for n in [1]),
    "coroutine": lambda: asyncio.sleep(0),
    "exception": lambda: MADE["LazyCause"](),
    "keys": lambda: {1: 2, "1": 3},
    "fine": lambda: {"a": [1, "b", None]},
    "number": lambda: -7,
    "long": lambda: 1e300,
    "duration": lambda: timedelta.max,
    "none": lambda: None,
}


@pgflow.signal
@dataclass
class Told:
    what: Any


@pgflow.message
@dataclass
class Shown:
    what: Any


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=2, initial=0.001))
async def give(ctx: pgflow.ActivityContext, which: str) -> Any:
    return VALUES[which]()


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=2, initial=0.001))
def give_from_a_thread(ctx: pgflow.ActivityContext, which: str) -> Any:
    return VALUES[which]()


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def keep(ctx: pgflow.ActivityContext, which: str) -> None:
    ctx.state[which] = VALUES[which]()


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def keep_under(ctx: pgflow.ActivityContext, which: str) -> None:
    ctx.state[VALUES[which]()] = 1


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def beat(ctx: pgflow.ActivityContext, which: str) -> None:
    ctx.heartbeat(VALUES[which]())


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def tag(ctx: pgflow.ActivityContext, which: str) -> None:
    ctx.update_tags({"what": VALUES[which]()})


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def take(ctx: pgflow.ActivityContext, what: Any) -> None: ...


@pgflow.workflow
async def nothing(ctx: pgflow.WorkflowContext, what: Any = None) -> Any:
    return what


async def looping(ctx: pgflow.WorkflowContext, which: str) -> Any:
    async def turn(ctx: pgflow.WorkflowContext, state: Any) -> Any:
        await ctx.activity(take, 1)
        return pgflow.Continue(VALUES[which]()) if state == 1 else pgflow.Break(state)

    return await ctx.loop(turn, 1)


async def within(ctx: pgflow.WorkflowContext, which: str) -> None:
    async with ctx.timeout(VALUES[which]()):
        await ctx.activity(take, 1)


async def child(ctx: pgflow.WorkflowContext, which: str) -> Any:
    handle = await ctx.dispatch(nothing, VALUES[which]())
    return await handle.output()


ACTS: dict[str, Callable[[pgflow.WorkflowContext, str], Any]] = {
    "argument": lambda ctx, which: ctx.activity(take, VALUES[which]()),
    "result": lambda ctx, which: ctx.activity(give, which),
    "result of a thread": lambda ctx, which: ctx.activity(give_from_a_thread, which),
    "kept": lambda ctx, which: ctx.activity(keep, which),
    "kept under": lambda ctx, which: ctx.activity(keep_under, which),
    "heartbeat": lambda ctx, which: ctx.activity(beat, which),
    "tags": lambda ctx, which: ctx.activity(tag, which),
    "state": looping,
    "inline": lambda ctx, which: ctx.inline(nothing, VALUES[which]()),
    "signal": lambda ctx, which: ctx.signal(Told(VALUES[which]()), to=ctx.id),
    "message": lambda ctx, which: ctx.publish(Shown(VALUES[which]())),
    "message's tags": lambda ctx, which: ctx.publish(Shown(1), tags={"what": VALUES[which]()}),
    "child": child,
    "child's tags": lambda ctx, which: ctx.dispatch(nothing, tags={"what": VALUES[which]()}),
    "child's moment": lambda ctx, which: ctx.dispatch(nothing, run_at=VALUES[which]()),
    "sleep": lambda ctx, which: ctx.sleep(VALUES[which]()),
    "sleep until": lambda ctx, which: ctx.sleep_until(VALUES[which]()),
    "timeout": within,
    "listen": lambda ctx, which: ctx.listen(Told, timeout=0.001),
    "listen for": lambda ctx, which: ctx.listen(Told, timeout=VALUES[which]()),
}
ENDLESS = {("listen for", "none"), ("listen for", "long"), ("sleep", "long")}
"""What waits for ever, as it is asked to."""


@pgflow.workflow
async def hostile(ctx: pgflow.WorkflowContext, acts: list[list[Any]], last: str) -> Any:
    """Each act is what is done, with which value or which error, and whether what comes of it is swallowed."""
    for what, which, swallowed in acts:
        try:
            if what in ACTIVITIES:
                await ctx.activity(ACTIVITIES[what], which)
            elif what in BODIES:
                await ctx.inline(raises, what, which)
            else:
                await ACTS[what](ctx, which)
        except BaseException:
            if not swallowed:
                raise
    if last in MADE:
        raise MADE[last]()
    return VALUES[last]()


@pgflow.activity
async def add(ctx: pgflow.ActivityContext, a: int, b: int) -> int:
    return a + b


@pgflow.workflow
async def innocent(ctx: pgflow.WorkflowContext, number: int) -> int:
    """Two steps and a sleep."""
    first = await ctx.activity(add, number, 1)
    await ctx.sleep(0.01)
    return await ctx.activity(add, first, 1)


WORKFLOWS = [hostile, innocent, nothing, raises, calls]


def ends(how: str) -> None:
    """End the process."""
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(int(how))


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=2, initial=0.001))
async def ends_its_process(ctx: pgflow.ActivityContext, how: str) -> None:
    await asyncio.sleep(0.05)
    ends(how)


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=2, initial=0.001))
def ends_its_process_from_a_thread(ctx: pgflow.ActivityContext, how: str) -> None:
    ends(how)


DEADLY = {each.name: each for each in (ends_its_process, ends_its_process_from_a_thread)}


@pgflow.workflow
async def deadly(ctx: pgflow.WorkflowContext, where: str, how: str) -> None:
    """Ends its process: in one of these activities, or by its own code."""
    if where in DEADLY:
        await ctx.activity(DEADLY[where], how)
    ends(how)


if __name__ == "__main__":
    nursery.keep(2, {"max_crashes": 2}, [*WORKFLOWS, deadly])
