"""Claims: how a worker takes runs that are due, hundreds at a time, with the history that a replay needs.

A claim and the reads are statements of one transaction that leave in one flush. The reads do not know the ids of what
the claim takes when they are sent: they find it by the worker's id and the claim's number. And they are statements of
their own so that each has a snapshot of its own, taken after the claim's locks: what the run's last owner committed
at the last moment is seen.

The index of claimable runs is (queue, name, priority descending, wake_at), and a *level* is one queue, name and
priority. Each level remembers up to which moment everything was taken, and looks only after it: entries of runs that
were taken are dead, and while somebody holds an old snapshot vacuum cannot remove them. Now and then a claim looks
from the beginning, for runs that became visible late (a dispatch in a transaction that was open for long), and
spends only a small share of the time on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from pgflow import faults
from pgflow.execution.ports import Claimed, Signal
from pgflow.history.events import Event
from pgflow.store.arrays import literal
from pgflow.store.connections import AsyncConnection, Database, Line, is_lost

OVERLAP = timedelta(seconds=1)
"""How far a claim looks back behind what is known to be taken: longer than the transactions of the engine last."""

SWEEP_EVERY = 1.0
"""Seconds between two looks from the beginning, at least."""

SWEEP_SHARE = 0.005
"""The share of time that looks from the beginning may take: far from one claim in a hundred is slowed down by them."""

PATIENCE = timedelta(milliseconds=50)
"""How long what has just woken is left to the worker that may still have it in memory. A worker's first claim leaves nothing: it may
have been started because that one has died, and somebody waits."""

FORGET_LEVEL = 60.0
"""Seconds after which a priority without runs is no longer asked for (it is found again by itself)."""

SIGNALS = 10_000
"""Signals of one mailbox that are read at once, at most."""

HORIZON = 60.0
"""Seconds ahead within which a claim tells when the next run is due."""

_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)
_LOWEST, _HIGHEST = -(2**31) - 1, 2**31

Scope = tuple[str, str]
"""A queue and a workflow's name."""

_Cursor = psycopg.AsyncCursor[TupleRow]


@dataclass(slots=True)
class Batch:
    """What one claim brought."""

    runs: list[Claimed]
    now: datetime
    """The database's time."""
    next_wake_at: datetime | None
    """When the next run of these queues and names is due, if that is known and near."""
    left: bool = False
    """Whether runs that are due were left: to the worker that had them last, for a moment, or to whoever had them locked."""


@dataclass(slots=True)
class _Level:
    since: datetime = _BEGINNING
    used: float = 0.0


@dataclass(slots=True)
class _Round:
    """The parameters of one claim."""

    levels: list[tuple[Scope, int, _Level]]
    sweeping: bool
    claim: int
    parameters: dict[str, Any] = field(default_factory=dict)


class Claims:
    """Takes runs for one worker.

    Example:
        claims = Claims(database, worker_id)
        batch = await claims.claim(500, ["default"], ["checkout"])
    """

    def __init__(self, database: Database, worker_id: int) -> None:
        self._database = database
        self._worker = worker_id
        self._line = Line(database, "claims")
        self._claims = 0
        self._levels: dict[Scope, dict[int, _Level]] = {}
        self._next_sweep = 0.0
        self._unsure: dict[int, float] = {}

    async def open(self) -> None:
        """Open the connection before the first claim needs it."""
        await self._line.get()

    async def close(self) -> None:
        """Close the connection."""
        await self._line.drop()

    async def claim(self, limit: int, queues: Iterable[str], names: Iterable[str]) -> Batch:
        """Take up to `limit` due runs of these queues and names, the highest priority and then the oldest first.

        A priority that this worker has not met before is found by one claim and served from the next one on.

        Args:
            limit: How many runs the worker has room for; with 0 nothing is taken.
            queues: The queues that the worker serves.
            names: The names of the workflows that it knows.

        Raises:
            psycopg.Error: The database refused. After a lost connection the next claim finds what this one took.
        """
        scopes = [(queue, name) for queue in queues for name in names]
        while True:
            around = self._round(limit, scopes)
            sent = time.monotonic()
            connection = await self._line.get()
            try:
                batch, found = await self._exchange(connection, around, scopes, limit)
            except (psycopg.Error, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) or is_lost(error, connection):
                    self._unsure[around.claim] = sent + self._database.lease
                    await self._line.drop()
                raise
            if around.sweeping:
                self._next_sweep = time.monotonic() + max(
                    SWEEP_EVERY, (time.monotonic() - sent) / SWEEP_SHARE
                )
            for scope, priority in found:
                self._levels[scope].setdefault(priority, _Level())
            if batch.runs or not found:
                return batch

    async def read_again(self, runs: list[Claimed]) -> None:
        """Fill in input and history of runs that were claimed as warm and are not in memory any more.

        Raises:
            psycopg.Error: The database refused.
        """
        by_key = {str(claimed.workflow_id): claimed for claimed in runs}
        asked = {"ids": list(by_key)}
        text = self._database.statement
        async with self._line.transaction() as transaction:
            inputs = await transaction.execute(text("claim_inputs"), asked, prepare=True)
            history = await transaction.execute(
                text("claim_again"), asked, prepare=True, binary=True
            )
        for key, input_ in await inputs.fetchall():
            by_key[key].input = input_
        await _add_history(by_key, history)
        for claimed in runs:
            claimed.warm = False

    def _round(self, limit: int, scopes: list[Scope]) -> _Round:
        """Decide what to ask for and from which moments on."""
        clock = time.monotonic()
        sweeping = clock >= self._next_sweep
        self._claims += 1
        around = _Round([], sweeping, self._claims)
        for scope in scopes:
            known = self._levels.setdefault(scope, {0: _Level(used=clock)})
            if sweeping:
                for priority in [
                    p for p, level in known.items() if p and level.used < clock - FORGET_LEVEL
                ]:
                    del known[priority]
            around.levels.extend((scope, priority, level) for priority, level in known.items())
        around.parameters = {
            "worker": self._worker,
            "claim": around.claim,
            "limit": limit,
            "horizon": HORIZON,
            "patience": PATIENCE if self._claims > 1 else timedelta(0),
            "signals": SIGNALS,
            "queues": literal([scope[0] for scope, _, _ in around.levels]),
            "names": literal([scope[1] for scope, _, _ in around.levels]),
            "priorities": literal([priority for _, priority, _ in around.levels]),
            "since": literal([_BEGINNING if sweeping else level.since for _, _, level in around.levels]),
        }
        return around

    def _gaps(self, scopes: list[Scope]) -> dict[str, Any]:
        gaps = [
            (*scope, above, below)
            for scope in scopes
            for edges in (sorted([_LOWEST, *self._levels[scope], _HIGHEST]),)
            for above, below in zip(edges, edges[1:], strict=False)
        ]
        columns = zip(*gaps, strict=True) if gaps else ([], [], [], [])
        return dict(zip(("queues", "names", "above", "below"), map(literal, columns), strict=True))

    async def _exchange(
        self, connection: AsyncConnection, around: _Round, scopes: list[Scope], limit: int
    ) -> tuple[Batch, list[tuple[Scope, int]]]:
        """Send everything in one flush, then read the answers."""
        parameters, text = around.parameters, self._database.statement
        unsure = self._still_unsure()
        late = []
        async with self._line.transaction() as transaction:
            taken = await transaction.execute(text("claim"), parameters, prepare=True)
            await faults.reach("claims.before_read")
            runs = await transaction.execute(text("claim_runs"), parameters, prepare=True)
            history = await transaction.execute(
                text("claim_history"), parameters, prepare=True, binary=True
            )
            signals = await transaction.execute(text("claim_signals"), parameters, prepare=True)
            for claim in unsure:
                mine = {"worker": self._worker, "claim": claim, "signals": SIGNALS}
                late.append(await transaction.execute(text("claim_runs"), mine, prepare=True))
                late.append(
                    await transaction.execute(
                        text("claim_history"), mine, prepare=True, binary=True
                    )
                )
                late.append(await transaction.execute(text("claim_signals"), mine, prepare=True))
            ahead = await transaction.execute(text("claim_ahead"), parameters, prepare=True)
            levels = await transaction.execute(
                text("claim_levels"), self._gaps(scopes), prepare=True
            )
        ((now, next_wake_at),) = await ahead.fetchall()
        claimed = await _claimed(runs, history, signals, now)
        for claim, runs, history, signals in zip(
            unsure, late[::3], late[1::3], late[2::3], strict=True
        ):
            if found := await _claimed(runs, history, signals, now):
                del self._unsure[claim]
                claimed += found
        left = self._remember(around, await taken.fetchall(), now, limit)
        new = [((queue, name), priority) for queue, name, priority in await levels.fetchall()]
        return Batch(claimed, now, next_wake_at, left), new

    def _remember(
        self, around: _Round, taken: list[tuple[int, datetime, int]], now: datetime, limit: int
    ) -> bool:
        """Move on the moments up to which everything is known to be taken; whether anything due was left."""
        clock = time.monotonic()
        due = 0
        for number, last, count in taken:
            if number == 0:
                due += count
                continue
            due -= count
            level = around.levels[number - 1][2]
            level.since = max(level.since, last - OVERLAP)
            level.used = clock
        if sum(count for number, _, count in taken if number) < limit:
            # Nothing due was left over, but for what others hold: they take it, or the next sweep finds it again.
            for _, _, level in around.levels:
                level.since = now - OVERLAP
        return due > 0

    def _still_unsure(self) -> list[int]:
        """Claims whose connection broke and which may have been committed, or still be."""
        clock = time.monotonic()
        self._unsure = {claim: until for claim, until in self._unsure.items() if until > clock}
        return list(self._unsure)


async def _claimed(
    runs: _Cursor, history: _Cursor, signals: _Cursor, now: datetime
) -> list[Claimed]:
    """Runs with their events and signals, which come ordered by workflow and place."""
    claimed: dict[str, Claimed] = {}
    for (
        workflow_id,
        key,
        name,
        queue,
        epoch,
        input_,
        tags,
        created_at,
        parent_id,
        seed,
        mailbox,
        cancel,
        state,
        tags_now,
        warm,
        cancellations,
    ) in await runs.fetchall():
        claimed[key] = Claimed(
            workflow_id,
            name,
            queue,
            epoch,
            input_,
            tags,
            created_at,
            parent_id,
            seed,
            mailbox,
            cancel,
            now,
            state=state,
            tags_now=tags_now,
            warm=warm,
            cancellations=cancellations or (),
        )
    await _add_history(claimed, history)
    for key, *signal in await signals.fetchall():
        claimed[key].signals.append(Signal(*signal))
    return list(claimed.values())


async def _add_history(claimed: dict[str, Claimed], history: _Cursor) -> None:
    """Read rows of history into the events of their runs, each as it comes: of a long history there is one list of rows, not two."""
    current = ""
    events: list[Event] = []
    make: Callable[[type[Event], Sequence[Any]], Event] = tuple.__new__

    def take(row: Sequence[Any]) -> None:
        nonlocal current, events
        if row[0] != current:
            current = row[0]
            events = claimed[current].events
        events.append(make(Event, row[1:]))

    history.row_factory = lambda _: take  # type: ignore[assignment]  # what it takes it need not return
    await history.fetchall()
