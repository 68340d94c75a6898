"""An endless loop: what a turn costs, how many active rows there are, and how long a wake-up takes, turn after turn.

Sleeping workflows are not kept in memory here, so that each wake-up claims the workflow, reads its history and replays
it. The loop waits for a signal in a few turns around each mark; in all others it does one no-op activity. What it comes
to at its last mark is compared with a loop that is young then, in alternation: a machine is not the same from one
minute to the next.
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

Connection = psycopg.AsyncConnection[tuple[object, ...]]

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
    """What the activities of the loops, which run in this process, have seen."""

    marks: list[int] = field(default_factory=list)
    turns: dict[UUID, dict[int, float]] = field(default_factory=dict)
    """When the activities of turns behind marks ran."""
    woken: asyncio.Event = field(default_factory=asyncio.Event)


watch = Watch()


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, turn: int) -> bool:
    """Says whether the turn waits."""
    behind = min((turn - mark for mark in watch.marks if mark <= turn), default=COUNTED + WAKES)
    if behind < COUNTED + WAKES:
        watch.turns.setdefault(ctx.workflow_id, {})[turn] = time.perf_counter()
        watch.woken.set()
    return behind < WAKES


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
    rows: int = 0
    """Rows of active history."""
    wakes: list[float] = field(default_factory=list)
    """Milliseconds from a signal to the next activity."""
    cost: float = 0.0
    """Milliseconds of a turn, median of those after the mark."""

    @property
    def wake(self) -> float:
        """Milliseconds to wake, median."""
        return median(self.wakes)


def run(plan: Plan) -> list[Figure]:
    """One long loop, and a young one when that is old; each mark gives medians of its own."""
    last = plan.turns or plan.scaled(100_000, 40)
    *marks, end, young = asyncio.run(measure(plan, spread(last)))
    (plan.results / "loop.svg").write_text(
        plot(
            f"A loop of {last:,} turns",
            [mark.turn for mark in [*marks, end]],
            {
                "active rows": [float(mark.rows) for mark in [*marks, end]],
                "ms to wake": [mark.wake for mark in [*marks, end]],
                "ms a turn": [mark.cost for mark in [*marks, end]],
            },
        )
    )
    return [
        Figure(f"active rows at turn {end.turn:,}", "", [float(end.rows)], f"{young.rows} at turn {young.turn}"),
        Figure(f"cost of a turn at turn {young.turn}", "ms", [young.cost], f"median of {COUNTED} turns"),
        Figure(f"cost of a turn at turn {end.turn:,}", "ms", [end.cost], "beside the other"),
        Figure(f"the same, turn {end.turn:,} / turn {young.turn}", "x", [end.cost / young.cost]),
        Figure(f"time to wake at turn {young.turn}", "ms", [young.wake], "signal to activity, replay included"),
        Figure(f"time to wake at turn {end.turn:,}", "ms", [end.wake], "in alternation with the other"),
        Figure(f"the same, turn {end.turn:,} / turn {young.turn} ", "x", [end.wake / young.wake]),
    ]


def spread(last: int) -> list[int]:
    """Turns at which to look: 100, and five more up to the last."""
    return [100, *(last * fifth // 5 for fifth in range(1, 6))]


async def measure(plan: Plan, turns: list[int]) -> list[Mark]:
    """Run the loop past all marks; the last one is that of the young loop."""
    watch.marks, watch.turns = turns, {}
    found = []
    behind = WAKES + COUNTED
    with plan.server.database() as dsn:
        async with (
            pgflow.Worker(dsn, workflows=[endless], cached=0),
            pgflow.Client(dsn) as client,
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
        ):
            old = await client.dispatch(endless, turns[-1] + behind)
            for turn in turns[:-1]:
                mark = Mark(turn)
                for number in range(WAKES):
                    await wake(client, connection, old.id, mark, number)
                found.append(mark)
            end, young = Mark(turns[-1]), Mark(turns[0])
            await asleep(connection, old.id, end.turn)
            fresh = await client.dispatch(endless, young.turn + behind)
            for number in range(WAKES):
                await wake(client, connection, old.id, end, number)
                await wake(client, connection, fresh.id, young, number)
            await asyncio.gather(old.output(timeout=600), fresh.output(timeout=600))
    for mark in found:
        mark.cost = cost(old.id, mark)
    end.cost, young.cost = cost(old.id, end), cost(fresh.id, young)
    return [*found, end, young]


async def wake(client: pgflow.Client, connection: Connection, id: UUID, mark: Mark, number: int) -> None:
    """Wake a loop so many turns behind a mark, once it sleeps there."""
    turn = mark.turn + number
    await asleep(connection, id, turn)
    mark.rows = await active_rows(connection, id)
    watch.woken.clear()
    sent = time.perf_counter()
    await client.signal(Go(), to=id)
    while turn + 1 not in watch.turns[id]:
        await watch.woken.wait()
        watch.woken.clear()
    mark.wakes.append(1000 * (watch.turns[id][turn + 1] - sent))


def cost(id: UUID, mark: Mark) -> float:
    """Milliseconds of a turn behind a mark."""
    moments = [watch.turns[id][turn] for turn in range(mark.turn + WAKES + 1, mark.turn + WAKES + COUNTED)]
    return 1000 * median(b - a for a, b in zip(moments, moments[1:], strict=False))


async def asleep(connection: Connection, id: UUID, turn: int) -> None:
    """Wait until the workflow has gone to sleep in this turn."""
    async with asyncio.timeout(3600):
        while True:
            if turn in watch.turns.get(id, {}):
                cursor = await connection.execute("SELECT status FROM pgflow.runs WHERE workflow_id = %s", [id])
                if await cursor.fetchone() == ("sleeping",):
                    return
            await asyncio.sleep(0.02)


async def active_rows(connection: Connection, id: UUID) -> int:
    """How many rows a replay reads."""
    cursor = await connection.execute("SELECT count(*) FROM pgflow.events WHERE workflow_id = %s", [id])
    row = await cursor.fetchone()
    assert row is not None
    return int(str(row[0]))
