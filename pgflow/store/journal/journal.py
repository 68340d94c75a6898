"""Group commit: the writes of all runs of a worker, gathered and made durable in one statement after another.

    write() -> waiting -> [batch in flight] -> committed -> on_commit
                  ^              |-- row busy --+
                  +-----------------------------+     |-- not ours any more, or refused --> on_refused

At most one batch is in flight. It leaves at once when the journal is idle and gathers while another one is away, so
that batches grow with the load and a single step waits for nobody. One batch is one statement, which fences each run
by its own epoch (see `sql/journal_fence.sql`), so runs whose lease is gone are refused alone, runs whose row another
session has locked are put into the next batch, and the others commit.

Before anything is written again after a connection broke the fence moves (`fencing.py`), so that the batch that was on
its way cannot arrive late. What became of it is read from the rows themselves: it is written again, which changes
nothing that is there already, together with a statement that reads when its rows became durable. That costs nothing as
long as no connection breaks, and it works where transaction ids cannot be asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, Protocol
from uuid import UUID

import psycopg

from pgflow import faults
from pgflow.errors import LeaseLost
from pgflow.model.outcomes import Cancelled, Completed, Failed, Suspended
from pgflow.model.rows import EventRow, RunKey
from pgflow.model.writes import Write
from pgflow.observe.worker_metrics import WorkerMetrics
from pgflow.store.database.background import BackgroundTask
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.connections import Database, Line, is_locked_out, is_lost
from pgflow.store.database.pipeline import Statement, flush, log_lost_hints, rows_of
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.database.sqlstate import DATA
from pgflow.store.journal.answers import BatchAnswer, Verdict, read
from pgflow.store.journal.batch import SEPARATOR, RunPart, parts_of, size_of
from pgflow.store.journal.statement import append
from pgflow.store.leasing.fencing import Fence, fence_of

_log = logging.getLogger("pgflow.store")

MAX_ROWS = 2_000
"""The most rows and outcomes in one batch, so that a transaction stays short (some ten milliseconds)."""

MAX_BYTES = 8 * 1024 * 1024
"""About how many bytes one batch has, unless a single write is larger."""

BOUND = 20_000
"""The most rows and outcomes that wait before callers are held up."""

BUSY_WAIT = 0.005
"""Seconds before a batch that found all its runs busy is tried again; doubled after each try."""

LONGEST_WAIT = 0.5
"""The most seconds between two attempts of the same batch."""

LOCK_WAIT = 50
"""Milliseconds that a batch waits for a row that another session has locked: longer than workers hold their locks, and
less than the server waits before it looks for deadlocks. After that it is sent again, and skips everything that is
locked.
"""


_ENDS = (Completed, Failed, Cancelled)
"""The outcomes that others may wait for."""


class Hints(Protocol):
    """How the ends of workflows are announced."""

    def right_behind(self, ids: Sequence[UUID | str]) -> list[Statement]:
        """The hint to send in one flush with the batch; empty if it cannot be sent that way."""

    def done(self, *ids: UUID | str) -> None:
        """Send the hint soon."""


class Journal:
    """Implements `pgflow.ports.JournalPort` for one worker on one event loop.

    Example:
        journal = Journal(database, worker_id)
        journal.start()
        journal.write(write)          # write.on_commit is called after the commit
        await journal.close()
    """

    def __init__(
        self,
        database: Database,
        worker: int | Fence,
        *,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
        bound: int = BOUND,
        hints: Hints | None = None,
        on_batch: Callable[[int, int], None] | None = None,
        on_ends_told: Callable[[], None] | None = None,
        on_death: Callable[[BaseException], None] | None = None,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        """
        Args:
            database: Where to write.
            worker: The worker whose leases fence the writes.
            max_rows: The most rows and outcomes in one batch.
            max_bytes: Bytes of one batch, about.
            bound: Rows and outcomes that may wait before `room` holds callers up.
            hints: Announces that workflows have ended; None: that is not announced.
            on_batch: Called after each committed batch with its numbers of runs and rows (hints).
            on_ends_told: Called when others may have been sent the ends of workflows that they found in place of a
                child of their own.
            on_death: Called when the journal stops, since its own code raised an error: it writes nothing more.
            metrics: Counts batches, and writes that are durable; None: nothing is counted.
        """
        self._database = database
        self._fence = fence_of(worker)
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._hints = hints
        self._on_batch = on_batch
        self._on_ends_told = on_ends_told
        self._metrics = metrics
        self._line = Line(database, "journal", self._fence, lock_timeout=LOCK_WAIT)
        self._waiting: deque[Write] = deque()
        self._weight = self._size = 0
        """The totals of what waits: rows and outcomes; bytes."""
        self._busy: dict[RunKey, list[Write]] = {}
        self._sent: list[Write] = []
        self._doubtful: set[int] = set()
        self.backlog = 0
        """Rows and outcomes handed over that are not durable yet."""
        self._arrived = asyncio.Event()
        self._awaiting = False
        """Whether the next write has to set that event."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._has_space = asyncio.Event()
        self._background = BackgroundTask(self._run, "pgflow journal", on_death)
        self.bound = bound
        """The most rows and outcomes that wait, if callers await `room`."""
        self.batches = 0
        """Batches committed so far."""
        self.held_up = 0
        """Batches that gave up because another session had locked a row."""

    @property
    def worker_id(self) -> int:
        """The current number of the worker whose leases fence the writes."""
        return self._fence.id

    def start(self) -> None:
        """Begin to write; call it on the event loop that the callbacks belong to."""
        self._background.start()

    def write(self, write: Write) -> None:
        """Take one write; it is in the next batch, or in a later one when its run's row is busy."""
        self._waiting.append(write)
        weight = len(write.rows) + 1
        self._weight += weight
        self._size += size_of(write)
        if not self.backlog:
            self._empty.clear()
        self.backlog += weight
        if self._awaiting:
            self._awaiting = False
            self._arrived.set()

    async def drain(self) -> None:
        """Wait until all that was handed over so far, or is while this waits, is durable or refused."""
        while self.backlog:
            await self._empty.wait()

    async def room(self) -> None:
        """Wait until the journal is no longer behind: callers that make rows bound the memory with it."""
        while self.backlog >= self.bound:
            self._has_space.clear()
            await self._has_space.wait()

    async def close(self) -> None:
        """Stop writing. What still waits is refused with `LeaseLost`: `drain` first to have it written."""
        await self._background.stop()
        await self._line.drop()
        parked = [write for writes in self._busy.values() for write in writes]
        left = [*self._sent, *parked, *self._waiting]
        self._sent, self._busy = [], {}
        self._waiting.clear()
        self._weight = self._size = 0
        self._deliver([(left, LeaseLost("the worker's journal was closed before this could be written"))])

    async def _run(self) -> None:
        """Send batch after batch; results are delivered while the next batch is on its way."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(BUSY_WAIT, LONGEST_WAIT)
        await self._warm_up()
        while True:
            if not self._waiting and not self._busy:
                self._arrived.clear()
                self._awaiting = True
                await self._arrived.wait()
            skip_locked = bool(self._busy)  # what a run was busy with may be another row than its own
            self._sent = self._next_writes()
            answer = await self._write(parts_of(self._sent), skip_locked)
            self._sent = []
            for part in answer.busy:
                self._busy[part.key] = part.writes
            if answer.settled:
                backoff.reset()
                if answer.poisoned:
                    # Settle this before anything else of these runs is sent: a run's history has no holes.
                    self._deliver(self._with_later_writes(answer))
                else:
                    loop.call_soon(self._deliver, answer.settled)
            elif not self._waiting:
                await self._linger(backoff.pause())
            del answer  # an idle journal must not keep the runs of its last batch in memory

    async def _warm_up(self) -> None:
        """Connect, and have the server plan what is sent most often, for a workflow that does not exist, so that
        nothing is written.
        """
        connection = await self._line.get()
        row = EventRow("1", 0, 1, 1, "activity", "", "completed", 1, "{}", "1", *[None] * 6)
        nobody = [
            Write(RunKey(str(UUID(int=0)), 0), rows, outcome, lambda *_: None, lambda *_: None)
            for rows, outcome in (([row], None), ([], Completed("1")), ([], Suspended(None)))
        ]
        batches = [append(self._database.schema, "0", parts_of([write]), careful=False) for write in nobody]
        try:
            for answer in await flush(connection, *batches):
                rows_of(answer)
        except psycopg.Error as error:
            _log.debug("warming up failed, and the first batch will report it if it lasts: %s", error)

    def _with_later_writes(self, answer: BatchAnswer) -> list[Verdict]:
        """The verdicts, and those of poisoned runs also for their writes that were handed over later."""
        settled = list(answer.settled)
        kept: deque[Write] = deque()
        for write in self._waiting:
            error = answer.poisoned.get(write.run)
            if error is None:
                kept.append(write)
            else:
                settled.append(([write], error))
                self._weight -= len(write.rows) + 1
                self._size -= size_of(write)
        self._waiting = kept
        return settled

    async def _linger(self, seconds: float) -> None:
        """Wait until a new write arrives, `seconds` at most."""
        self._arrived.clear()
        self._awaiting = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), seconds)

    def _next_writes(self) -> list[Write]:
        """The writes of the next batch: runs that were busy get at most half of it; each run's writes stay in order."""
        writes: list[Write] = []
        rows = size = 0
        for key in list(self._busy):
            if rows >= self._max_rows // 2:
                break
            parked = self._busy.pop(key)
            writes += parked
            rows += sum([len(write.rows) + 1 for write in parked])
            size += sum(map(size_of, parked))
        waiting = self._waiting
        if not self._busy and rows + self._weight <= self._max_rows and size + self._size <= self._max_bytes:
            writes += waiting
            waiting.clear()
            self._weight = self._size = 0
            return writes
        while waiting:
            write = waiting[0]
            weight, its_size = len(write.rows) + 1, size_of(write)
            if self._busy and write.run in self._busy:
                self._busy[write.run].append(write)
            else:
                rows += weight
                size += its_size
                if writes and (rows > self._max_rows or size > self._max_bytes):
                    break
                writes.append(write)
            waiting.popleft()
            self._weight -= weight
            self._size -= its_size
        return writes

    def _deliver(self, settled: list[Verdict]) -> None:
        """Call back each write of a batch with its verdict, in the order in which a run's writes were handed over."""
        self.backlog -= sum([len(write.rows) + 1 for writes, _ in settled for write in writes])
        if self.backlog < self.bound:
            self._has_space.set()
        if not self.backlog:
            self._empty.set()
        if self._doubtful:
            self._doubtful.difference_update([id(write) for writes, _ in settled for write in writes])
        if self._metrics is not None:
            done = [writes for writes, verdict in settled if isinstance(verdict, datetime)]
            self._metrics.committed(list(chain.from_iterable(done)))
        for writes, verdict in settled:
            committed = isinstance(verdict, datetime)
            for write in writes:
                callback: Callable[[Write, Any], None] = write.on_commit if committed else write.on_refused
                try:
                    callback(write, verdict)
                except Exception:
                    # An error in one run's callback must not keep the others from being called.
                    _log.exception(
                        "a journal callback of workflow %s failed",
                        write.run.workflow,
                        extra={"workflow_id": str(write.run.workflow)},
                    )

    async def _write(self, parts: list[RunPart], skip_locked: bool) -> BatchAnswer:
        """Write a batch, as often as it takes to get a verdict on each of its runs."""
        backoff = Backoff(BUSY_WAIT, LONGEST_WAIT)
        started = time.monotonic()
        careful = False
        while True:
            connection = await self._line.get()
            try:
                answer = await self._send(connection, parts, careful, skip_locked)
            except Exception as error:
                if isinstance(error, psycopg.errors.UniqueViolation) and not careful:
                    careful = True  # a row exists that the statement could not see
                    continue
                if is_locked_out(error):
                    self.held_up += 1
                    if skip_locked:
                        return await self._write_apart(parts, skip_locked, error)
                    skip_locked = True
                    continue
                if not isinstance(error, psycopg.Error) or _is_poison(error):
                    return await self._write_apart(parts, skip_locked, error)
                if is_lost(error, connection):
                    _log.warning(
                        "the journal's connection broke, and its last batch is sent again (it may be committed): %s",
                        error,
                    )
                    self._doubtful.update(id(write) for part in parts for write in part.writes)
                    await self._line.drop()
                else:
                    _log.warning("the journal's batch was put off by the database and is sent again: %s", error)
                await asyncio.sleep(backoff.spread_pause())
            else:
                self.batches += 1
                rows = sum([len(part.rows) for part in parts])
                if self._metrics is not None:
                    self._metrics.flushed(rows, time.monotonic() - started)
                if self._on_batch is not None:
                    self._on_batch(len(parts), rows)
                return answer

    async def _write_apart(self, parts: list[RunPart], skip_locked: bool, error: Exception) -> BatchAnswer:
        """Something in the batch cannot be written: find it by bisection; only its run is refused from that write on,
        or is busy.
        """
        if len(parts) > 1:
            half = len(parts) // 2
            return await self._write(parts[:half], skip_locked) + await self._write(parts[half:], skip_locked)
        (part,) = parts
        if is_locked_out(error):
            return BatchAnswer([], [part], {})
        if len(part.writes) == 1:
            return BatchAnswer([(part.writes, error)], [], {part.key: error})
        half = len(part.writes) // 2
        first = await self._write(parts_of(part.writes[:half]), skip_locked)
        rest = part.writes[half:]
        if first.busy:
            return BatchAnswer([], [part], {})
        refused = first.settled[-1][1]
        if isinstance(refused, BaseException):
            return first + BatchAnswer([(rest, refused)], [], {})
        return first + await self._write(parts_of(rest), skip_locked)

    async def _send(
        self, connection: AsyncConnection, parts: list[RunPart], careful: bool, skip_locked: bool
    ) -> BatchAnswer:
        await faults.reach("journal.before")
        careful = careful or bool(self._doubtful)
        statement, parameters = append(
            self._database.schema, str(self._line.under), parts, careful=careful, skip_locked=skip_locked
        )
        ended = [part.key.workflow for part in parts if part.outcome is not None and isinstance(part.outcome, _ENDS)]
        if self._doubtful:
            doubtful = [part for part in parts if any(id(write) in self._doubtful for write in part.writes)]
            if doubtful:
                answer = await self._send_again(parts, ended, statement, parameters)
                if self._hints is not None:
                    self._hints.done(*ended)
                return answer
        hint = [] if self._hints is None else self._hints.right_behind(ended)
        written, *hint_answers = await flush(connection, (statement, parameters), *hint)
        await faults.reach("journal.after")
        (found,) = rows_of(written)
        log_lost_hints(hint_answers)
        if self._hints is not None and not hint:
            self._hints.done(*ended)
        return self._read(parts, ended, *found)

    def _read(self, parts: Sequence[RunPart], ended: Sequence[str], *found: Any) -> BatchAnswer:
        *fenced, awaited = found
        if awaited and ended and self._on_ends_told is not None:
            self._on_ends_told()
        return read(parts, partial(self._fence.refused, self._line.under), *fenced)

    async def _send_again(
        self, parts: list[RunPart], ended: Sequence[str], statement: bytes, parameters: dict[str, Any]
    ) -> BatchAnswer:
        """Write a batch that may be durable in part already, and find out since when."""
        writes = [write for part in parts for write in part.writes]
        keyed = [(number, write, row) for number, write in enumerate(writes) for row in write.rows]
        stored = {
            "write": [number for number, _, _ in keyed],
            "workflow_ids": [write.run.workflow_id for _, write, _ in keyed],
            "location": SEPARATOR.join([row.location for _, _, row in keyed]),
        }
        every = {"workflow_ids": [part.key.workflow_id for part in parts]}
        async with self._line.transaction() as transaction:
            written = await transaction.execute(statement, parameters, prepare=True)
            times = await transaction.execute(self._database.statement("journal_stored"), stored)
            fates = await transaction.execute(self._database.statement("journal_fate"), every)
        await faults.reach("journal.after")
        found = await written.fetchone()
        assert found is not None
        answer = self._read(parts, ended, *found)
        moments: dict[int, datetime] = dict(await times.fetchall())
        numbers = {id(write): number for number, write in enumerate(writes)}
        fate = {parts[number - 1].key: rest for number, *rest in await fates.fetchall()}
        confirmed = {part.key: _ended(part, *fate[part.key]) for part in parts}
        settled: list[Verdict] = []
        for write, verdict in ((write, verdict) for writes, verdict in answer.settled for write in writes):
            if isinstance(verdict, LeaseLost):
                verdict = confirmed[write.run] or verdict
            if isinstance(verdict, datetime):
                verdict = moments.get(numbers[id(write)], verdict)
            settled.append(([write], verdict))
        return answer._replace(settled=settled)


def _ended(
    part: RunPart,
    epoch: int | None,
    worker: int | None,
    status: str | None,
    final: str | None,
    at: datetime,
) -> datetime | None:
    """When the outcome became durable, if a run that is no longer ours has the outcome that this worker had asked for.

    Anything less certain counts as a lost lease, which is always safe: the run leaves memory and goes on from its rows.
    """
    if isinstance(part.outcome, Completed):
        return at if epoch is None and final == "completed" else None
    if isinstance(part.outcome, Cancelled):
        return at if epoch is None and final == "cancelled" else None
    if part.outcome is None or epoch != part.key.epoch or worker is not None:
        return None
    if isinstance(part.outcome, Failed):
        return at if status == "failed" else None
    return at if status in ("pending", "sleeping", "paused") else None


def _is_poison(error: psycopg.Error) -> bool:
    """Whether the error is about a value in the batch, so that the rest could be written without it."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    return error.sqlstate[:2] in DATA
