"""An endless loop: what a turn costs, how many active rows there are, and how long a wake-up takes, turn after turn.

Sleeping workflows are not kept in memory here, so that each wake-up claims the workflow, reads its history and replays
it. The loop waits for a signal in a few turns around each mark; in all others it does one no-op activity.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median
from uuid import UUID

import psycopg

import pgflow
from benchmarks.figures import Figure
from benchmarks.plan import Plan
from benchmarks.plot import plot

WAKES = 15
"""Turns at each mark that begin with a wake-up."""

COUNTED = 200
"""Turns after each mark over which the cost of a turn is taken."""


@pgflow.signal
@dataclass
class Go:
    """Ends a wait."""


@dataclass(slots=True)
class Watch:
    """What the activities of the loop, which run in this process, have seen."""

    marks: list[int] = field(default_factory=list)
    turns: dict[int, float] = field(default_factory=dict)
    """When a turn's activity ran."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)


watch = Watch()


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, turn: int) -> bool:
    """Says whether the turn waits."""
    watch.turns[turn] = time.perf_counter()
    watch.woken.set()
    return any(mark <= turn < mark + WAKES for mark in watch.marks)


@pgflow.workflow
async def endless(ctx: pgflow.WorkflowContext, turns: int) -> int:
    """So many turns."""

    async def body(ctx: pgflow.WorkflowContext, turn: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        if await ctx.activity(note, turn):
            await ctx.listen(Go)
        return pgflow.Continue(turn + 1) if turn < turns else pgflow.Break(turn)

    return await ctx.loop(body, 0)


@dataclass(slots=True)
class Mark:
    """What was seen at one mark."""

    turn: int
    rows: int
    """Rows of active history."""
    wake: float
    """Milliseconds from a signal to the next activity, median."""
    cost: float = 0.0
    """Milliseconds of a turn, median of those after the mark."""


def run(plan: Plan) -> list[Figure]:
    """One long loop; each mark gives medians of its own."""
    last = plan.scaled(100_000, 40)
    marks = asyncio.run(measure(plan, spread(last)))
    (plan.results / "loop.svg").write_text(
        plot(
            f"A loop of {last:,} turns",
            [mark.turn for mark in marks],
            {
                "active rows": [float(mark.rows) for mark in marks],
                "ms to wake": [mark.wake for mark in marks],
                "ms a turn": [mark.cost for mark in marks],
            },
        )
    )
    first, end = marks[0], marks[-1]
    return [
        Figure(f"active rows at turn {end.turn:,}", "", [float(end.rows)], f"{first.rows} at turn {first.turn}"),
        Figure(f"cost of a turn at turn {first.turn}", "ms", [first.cost], f"median of {COUNTED} turns"),
        Figure(f"cost of a turn at turn {end.turn:,}", "ms", [end.cost]),
        Figure(f"the same, turn {end.turn:,} / turn {first.turn}", "x", [end.cost / first.cost]),
        Figure(f"time to wake at turn {first.turn}", "ms", [first.wake], "signal to activity, replay included"),
        Figure(f"time to wake at turn {end.turn:,}", "ms", [end.wake]),
        Figure(f"the same, turn {end.turn:,} / turn {first.turn} ", "x", [end.wake / first.wake]),
    ]


def spread(last: int) -> list[int]:
    """Turns at which to look: 100, and five more up to the last."""
    return [100, *(last * fifth // 5 for fifth in range(1, 6))]


async def measure(plan: Plan, turns: list[int]) -> list[Mark]:
    """Run the loop past all marks."""
    watch.marks, watch.turns = turns, {}
    found = []
    with plan.server.database() as dsn:
        async with (
            pgflow.Worker(dsn, workflows=[endless], cached=0),
            pgflow.Client(dsn) as client,
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
        ):
            handle = await client.dispatch(endless, turns[-1] + COUNTED + WAKES)
            for turn in turns:
                wakes = []
                for number in range(WAKES):
                    await asleep(connection, handle.id, turn + number)
                    rows = await active_rows(connection, handle.id)
                    watch.woken.clear()
                    sent = time.perf_counter()
                    await client.signal(Go(), to=handle.id)
                    await watch.woken.wait()
                    wakes.append(1000 * (watch.turns[turn + number + 1] - sent))
                found.append(Mark(turn, rows, median(wakes)))
            await handle.output(timeout=600)
    for mark in found:
        moments = [watch.turns[turn] for turn in range(mark.turn + WAKES + 1, mark.turn + WAKES + COUNTED)]
        mark.cost = 1000 * median(b - a for a, b in zip(moments, moments[1:], strict=False))
    return found


async def asleep(connection: psycopg.AsyncConnection[tuple[object, ...]], id: UUID, turn: int) -> None:
    """Wait until the workflow has gone to sleep in this turn."""
    async with asyncio.timeout(600):
        while True:
            if turn in watch.turns:
                cursor = await connection.execute("SELECT status FROM pgflow.runs WHERE workflow_id = %s", [id])
                if await cursor.fetchone() == ("sleeping",):
                    return
            await asyncio.sleep(0.02)


async def active_rows(connection: psycopg.AsyncConnection[tuple[object, ...]], id: UUID) -> int:
    """How many rows a replay reads."""
    cursor = await connection.execute("SELECT count(*) FROM pgflow.events WHERE workflow_id = %s", [id])
    row = await cursor.fetchone()
    assert row is not None
    return int(str(row[0]))
