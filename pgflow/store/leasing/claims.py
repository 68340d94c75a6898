"""Claims: how a worker takes runs that are due, hundreds at a time, with the history that a replay needs.

A claim and the reads are statements of one transaction that leave in one flush. The reads do not know the ids of what
the claim takes when they are sent: they find it by the worker's id and the claim's number. And they are statements of
their own so that each has a snapshot of its own, taken after the claim's locks: what the run's last owner committed
at the last moment is seen. A run that has never had an owner comes with the claim itself.

The index of claimable runs is (queue, name, priority descending, wake_at), and a *level* is one queue, name and
priority. Each level remembers the moment up to which everything has been taken, and looks only after it: the index
entries of runs that were taken are dead, and vacuum cannot remove them while somebody holds an old snapshot. Now and
then a claim looks from the beginning, for runs that became visible late (a dispatch in a transaction that stayed open
for long); only a small share of the time goes into that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

import psycopg

from pgflow.history.events import Event
from pgflow.history.rewinds import names_of_rewound
from pgflow.model.claimed import Claimed
from pgflow.model.rows import Signal
from pgflow.store.database.arrays import literal
from pgflow.store.database.connections import Database, Line, is_lost
from pgflow.store.database.pipeline import BulkStatement, FaultPoint, Rows, Statement, transact
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.leasing.fencing import Fence, fence_of
from pgflow.store.leasing.newer_builds import WAIT, QueueAndName, claim_that_waits

OVERLAP = timedelta(seconds=1)
"""How far before the moment up to which everything is known to be taken a claim still looks: more than a transaction of
the engine lasts.
"""

SWEEP_EVERY = 1.0
"""The least seconds between two looks from the beginning."""

SWEEP_SHARE = 0.005
"""The largest share of the time that looks from the beginning may take: far fewer than one claim in a hundred is slowed
down by them.
"""

LONGEST_WITHOUT_SWEEP = 5.0
"""Seconds for which a worker that is always busy puts off a look from the beginning."""

PATIENCE = timedelta(milliseconds=50)
"""How long a run that has just woken is left to the worker that may still have it in memory. A worker's first claim
leaves nothing: it may have been started because that worker has died and its work waits.
"""

FORGET_LEVEL = 60.0
"""Seconds after which a priority without runs is no longer asked for (a later run makes it known again)."""

SIGNALS = 10_000
"""The most signals of one mailbox that are read at once."""

HORIZON = 60.0
"""How many seconds ahead a claim looks for the next run that will be due."""

_BEGINNING = datetime(1, 1, 2, tzinfo=UTC)
_LOWEST, _HIGHEST = -(2**31) - 1, 2**31


@dataclass(slots=True)
class ClaimedRuns:
    """The result of one claim."""

    runs: list[Claimed]
    now: datetime
    """The database's time."""
    next_wake_at: datetime | None
    """When the next run of these queues and names is due, if that is known and near."""
    left: bool = False
    """Whether due runs were left: for a moment to the worker that had them last, or to the session that had them
    locked.
    """
    suspected: int = 0
    """The highest number of suspicions among due runs that are suspected of killing processes.
    `claim_suspected` takes them.
    """


@dataclass(slots=True)
class _PriorityLevel:
    since: datetime = _BEGINNING
    used: float = 0.0


@dataclass(slots=True)
class _ClaimRound:
    """The parameters of one claim."""

    levels: list[tuple[QueueAndName, int, _PriorityLevel]]
    gaps: list[tuple[QueueAndName, int, int]]
    """Between which priorities, of which queue and name, to look for others."""
    sweeping: bool
    claim: int
    parameters: dict[str, Any] = field(default_factory=dict)
    left: frozenset[QueueAndName] = frozenset()


class Claims:
    """Claims runs for one worker.

    Args:
        inputs: whether to read the arguments of steps as well, which a replay compares with today's if it is strict.

    Example:
        claims = Claims(database, worker_id)
        batch = await claims.claim(500, ["default"], ["checkout"])
    """

    def __init__(self, database: Database, worker: int | Fence, inputs: bool = False) -> None:
        self._database = database
        self._inputs = inputs
        self._fence = fence_of(worker)
        self._line = Line(database, "claims", self._fence)
        self._claims = 0
        self._patient = False
        self._levels: dict[QueueAndName, dict[int, _PriorityLevel]] = {}
        self._next_sweep = 0.0
        self._rewound = False
        """Whether rewound workflows are due, or will be soon: claims ask for their names as well."""
        self.left: frozenset[QueueAndName] = frozenset()
        """What is left to workers of newer builds until it has been due for a while; set by `leave`."""
        self._left = self.left
        """The same, with the names of those that were rewound."""

    async def warm_up(self, queues: Iterable[str], names: Iterable[str]) -> int:
        """Connect and have the server plan, before the first claim needs either: nothing is taken.

        Returns:
            Whether runs are due that deaths of processes are suspected of (`ClaimedRuns.suspected`).

        Raises:
            psycopg.Error: The database refused; the first claim will say so again.
        """
        return (await self.claim(0, queues, names)).suspected

    def leave(self, pairs: frozenset[QueueAndName]) -> None:
        """Leave what is due of these pairs for a while to workers of newer builds."""
        self.left = pairs
        self._left = pairs | {(queue, rewound) for queue, name in pairs for rewound in names_of_rewound([name])}

    async def close(self) -> None:
        """Close the connection."""
        await self._line.drop()

    def sweep_is_due(self, *, busy: bool) -> bool:
        """Whether it is time to look from the beginning: a worker that is not busy does so when no work waits for a
        claim.
        """
        return time.monotonic() >= self._next_sweep + (LONGEST_WITHOUT_SWEEP if busy else 0.0)

    async def claim(
        self, limit: int, queues: Iterable[str], names: Iterable[str], *, sweep: bool | None = None
    ) -> ClaimedRuns:
        """Take up to `limit` due runs of these queues and names, the highest priority and then the oldest first.

        A priority that this worker has not met before is found by one claim and served from the next one on.

        Args:
            limit: How many runs the worker has room for; with 0 nothing is taken.
            queues: The queues that the worker serves.
            names: The names of the workflows that it knows.
            sweep: Whether to look from the beginning; None: when it is due.

        Raises:
            psycopg.Error: The database refused. After a lost connection what this one took is free again before the
                next one.
        """
        queues, names = list(queues), list(names)
        while True:
            pairs = [
                (queue, name)
                for queue in queues
                for name in (names + names_of_rewound(names) if self._rewound else names)
            ]
            around = self._round(limit, pairs, self.sweep_is_due(busy=False) if sweep is None else sweep)
            sent = time.monotonic()
            connection = await self._line.get()
            around.parameters["worker"] = self._line.under
            try:
                asked_for_rewound = self._rewound
                batch, found = await self._exchange(connection, around, limit)
            except (psycopg.Error, asyncio.CancelledError) as error:
                await self._drop_lost(error, connection)
                raise
            self._forget_freed(batch)
            self._patient = self._patient or limit > 0
            if around.sweeping:
                self._next_sweep = time.monotonic() + max(SWEEP_EVERY, (time.monotonic() - sent) / SWEEP_SHARE)
            for pair, priority in found:
                # Counts as used now: a look from the beginning must not forget what it has just found.
                self._levels[pair].setdefault(priority, _PriorityLevel(used=time.monotonic()))
            unasked = self._rewound and not asked_for_rewound
            if batch.runs or not (found or unasked):
                batch.left = batch.left or unasked
                return batch

    async def claim_hinted(
        self, ids: Sequence[UUID], queues: Iterable[str], names: Iterable[str]
    ) -> ClaimedRuns | None:
        """Take those of these runs that are new, due and free, and of these queues and names; None: there is none.

        Raises:
            psycopg.Error: The database refused. After a lost connection what this one took is free again before the
                next one.
        """
        self._claims += 1
        text = self._database.statement
        connection = await self._line.get()
        mine = {"worker": self._line.under, "claim": self._claims}
        try:
            taken, signals = await transact(
                connection,
                self._database.statement_timeout,
                (text("claim_hinted"), {**mine, "ids": ids, "queues": list(queues), "names": list(names)}),
                (text("claimed_signals"), {**mine, "signals": SIGNALS}),
            )
        except (psycopg.Error, asyncio.CancelledError) as error:
            await self._drop_lost(error, connection)
            raise
        if not taken:
            return None
        now = taken[0][0]
        claimed = [_fresh(line, now) for line in taken]
        batch = ClaimedRuns(_with_signals(claimed, signals), now, None)
        self._forget_freed(batch)
        return batch

    async def claim_suspected(self, places: Sequence[int], queues: Iterable[str], names: Iterable[str]) -> ClaimedRuns:
        """Take due runs that are suspected of killing processes.

        Args:
            places: The most to take of those suspected once, twice, and more often.
            queues: The queues that the worker serves.
            names: The names of the workflows that it knows.

        Raises:
            psycopg.Error: The database refused. After a lost connection what this one took is free again before the
                next one.
        """
        self._claims += 1
        names = list(names)
        text = self._database.statement
        connection = await self._line.get()
        under = self._line.under
        asked = {
            "worker": under,
            "claim": self._claims,
            "places": list(places),
            "queues": list(queues),
            "names": [*names, *names_of_rewound(names)],
            "wait": WAIT,
            "late_queues": [queue for queue, _ in self._left],
            "late_names": [name for _, name in self._left],
        }
        reading = _Reading(text, under, self._claims, 0, self._inputs)
        try:
            ((now, _),), *answers = await transact(
                connection, self._database.statement_timeout, (text("claim_suspected"), asked), *reading.statements
            )
        except (psycopg.Error, asyncio.CancelledError) as error:
            await self._drop_lost(error, connection)
            raise
        batch = ClaimedRuns(reading.runs(answers, now, []), now, None)
        self._forget_freed(batch)
        return batch

    async def read_again(self, runs: list[Claimed]) -> None:
        """Fill in input and history of runs that were claimed as warm and are not in memory any more.

        Raises:
            psycopg.Error: The database refused.
        """
        by_key = {claimed.run.workflow: claimed for claimed in runs}
        asked = {"ids": list(by_key), "inputs": self._inputs}
        text = self._database.statement
        history = _History()
        inputs, _ = await transact(
            await self._line.get(),
            self._database.statement_timeout,
            (text("claimed_inputs"), {"ids": asked["ids"]}),
            BulkStatement(text("claimed_evicted"), asked, history.take),
        )
        for key, input_ in inputs:
            by_key[key].input = input_
        for claimed in runs:
            claimed.warm = False
        history.give(by_key)

    def _round(self, limit: int, pairs: list[QueueAndName], sweeping: bool) -> _ClaimRound:
        """Decide what to ask for, and from which moments on."""
        clock = time.monotonic()
        self._claims += 1
        around = _ClaimRound([], [], sweeping, self._claims)
        for pair in pairs:
            known = self._levels.setdefault(pair, {0: _PriorityLevel(used=clock)})
            if sweeping:
                for priority in [p for p, level in known.items() if p and level.used < clock - FORGET_LEVEL]:
                    del known[priority]
            around.levels.extend((pair, priority, level) for priority, level in known.items())
            edges = sorted([_LOWEST, *known, _HIGHEST])
            around.gaps.extend((pair, above, below) for above, below in zip(edges, edges[1:], strict=False))
        around.parameters = {
            "worker": self._fence.id,
            "claim": around.claim,
            "limit": limit,
            "horizon": HORIZON,
            "patience": PATIENCE if self._patient else timedelta(0),
            "queues": literal([pair[0] for pair, _, _ in around.levels]),
            "names": literal([pair[1] for pair, _, _ in around.levels]),
            "priorities": literal([priority for _, priority, _ in around.levels]),
            "since": literal([_BEGINNING if sweeping else level.since for _, _, level in around.levels]),
            "gap_queues": literal([pair[0] for pair, _, _ in around.gaps]),
            "gap_names": literal([pair[1] for pair, _, _ in around.gaps]),
            "above": literal([above for _, above, _ in around.gaps]),
            "below": literal([below for _, _, below in around.gaps]),
        }
        if self._left:
            around.left = self._left
            around.parameters["waits"] = literal([WAIT if pair in self._left else 0.0 for pair, _, _ in around.levels])
        return around

    async def _exchange(
        self, connection: AsyncConnection, around: _ClaimRound, limit: int
    ) -> tuple[ClaimedRuns, list[tuple[QueueAndName, int]]]:
        """Send everything in one flush, then read the answers."""
        text = self._database.statement
        # Those at their first epoch come with the claim itself.
        mine = _Reading(text, self._line.under, around.claim, 1, self._inputs)
        claim = claim_that_waits(text("claim")) if around.left else text("claim")
        lines, *answers = await transact(
            connection,
            self._database.statement_timeout,
            (claim, around.parameters),
            FaultPoint("claims.before_read"),
            *mine.statements,
        )
        (_, now, due, next_wake_at, new, suspected, self._rewound, *_), *taken = lines
        claimed = mine.runs(answers, now, [_fresh(line, now) for line in taken if line[-8] == 1])
        left = self._remember(around, taken, due, now, limit)
        return ClaimedRuns(claimed, now, next_wake_at, left, suspected or 0), [
            (around.gaps[gap - 1][0], priority) for gap, priority in new or ()
        ]

    def _remember(self, around: _ClaimRound, taken: Rows, due: int, now: datetime, limit: int) -> bool:
        """Advance the moments up to which everything is known to be taken, and return whether anything due was left."""
        clock = time.monotonic()
        for number, wake_at, *_ in taken:
            level = around.levels[number - 1][2]
            if wake_at > level.since + OVERLAP:
                level.since = wake_at - OVERLAP
            level.used = clock
        if len(taken) < limit:
            # Nothing due was left except what others hold: they take it, or the next sweep finds it.
            for pair, _, level in around.levels:
                level.since = now - OVERLAP if pair not in around.left else now - OVERLAP - timedelta(seconds=WAIT)
        return due > len(taken)

    async def _drop_lost(self, error: BaseException, connection: AsyncConnection) -> None:
        """Stop using a lost connection. What a claim took whose answer was lost is freed when the fence moves, which it
        does before the next claim.
        """
        if isinstance(error, asyncio.CancelledError) or is_lost(error, connection):
            await self._line.drop()

    def _forget_freed(self, batch: ClaimedRuns) -> None:
        """The fence has moved since the claim was sent, or is moving. What was taken is not in memory yet, so the move
        frees it.
        """
        if not self._fence.refused(self._line.under):
            batch.runs, batch.left = [], True


class _Reading:
    """The reads for the runs of one claim above the epoch `beyond`: the runs themselves, their history and their
    mailboxes.
    """

    def __init__(self, text: Callable[[str], bytes], worker: int, claim: int, beyond: int, inputs: bool) -> None:
        taken = {"worker": worker, "claim": claim}
        self._history = _History()
        self.statements: tuple[Statement, BulkStatement, Statement] = (
            (text("claimed_runs"), {**taken, "beyond": beyond}),
            BulkStatement(text("claimed_history"), {**taken, "inputs": inputs}, self._history.take),
            (text("claimed_signals"), {**taken, "signals": SIGNALS}),
        )

    def runs(self, answers: Sequence[Rows], now: datetime, known: list[Claimed]) -> list[Claimed]:
        """The runs that are known and then those that were read, all of them with their mailboxes."""
        read, _, signals, *_ = answers
        if read:
            by_key = {row[1]: _read(row, now) for row in read}
            self._history.give(by_key)
            known = known + list(by_key.values())
        return _with_signals(known, signals)


def _with_signals(claimed: list[Claimed], signals: Rows) -> list[Claimed]:
    """Put the signals that were read into the mailboxes of their runs."""
    if signals:
        by_key = {run.run.workflow: run for run in claimed}
        for key, *signal in signals:
            if (run := by_key.get(key)) is not None:  # else it was claimed between the two statements
                run.signals.append(Signal(*signal))
    return claimed


def _fresh(line: Sequence[Any], now: datetime) -> Claimed:
    """A run at its first epoch, as its claim gives it. No tags come as null, since each JSON text costs a microsecond
    to read.
    """
    id, name, queue, epoch, mailbox, cancel, input_, tags, created_at, parent_id, seed = line[-11:]
    return Claimed(id, name, queue, epoch, input_, tags or {}, created_at, parent_id, seed, mailbox, cancel, now)


def _read(row: Sequence[Any], now: datetime) -> Claimed:
    """A run as it was read after its claim."""
    (
        id,
        _,
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
        rewinds,
        timed_out,
        *deaths,
    ) = row
    claimed = Claimed(id, name, queue, epoch, input_, tags, created_at, parent_id, seed, mailbox, cancel, now)
    claimed.state, claimed.tags_now, claimed.warm, claimed.cancellations = state, tags_now, warm, cancellations or ()
    claimed.rewinds = rewinds or ()
    claimed.timed_out = timed_out
    suspicions, crashes, claimed.suspected_at = deaths
    if suspicions:
        claimed.suspicions, claimed.crashes = suspicions, crashes or ()
    return claimed


class _History:
    """Rows of history, taken as they arrive, so that a long history is in memory as one list of rows and not as two."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, list[Event]] = {}

    def take(self, rows: Rows, make: Callable[..., Event] = tuple.__new__) -> None:
        """Take some rows; the first of their columns is the run's id."""
        for key, group in groupby(rows, itemgetter(0)):
            self._of.setdefault(key, []).extend([make(Event, row[1:]) for row in group])

    def give(self, runs: Mapping[str, Claimed]) -> None:
        """Hand each run its events."""
        for key, events in self._of.items():
            runs[key].events = events
