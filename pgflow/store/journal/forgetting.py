"""Forgetting: the finished turns of loops leave active history, a few loops in one serializable transaction.

    BEGIN  ->  progress  ->  move  ->  trim  ->  fence  ->  COMMIT          (one flush)

The turn that follows is running and writing meanwhile, through the journal's READ COMMITTED statements, against which
SERIALIZABLE protects nothing. What protects its rows: the bounds of what moves are stored locations, computed from the
progress that the loop's own row holds. What keeps out a worker that has lost its lease: the fence, which locks the
runs' rows last, so that they are locked for a moment only, and undoes everything when one is not this worker's.

No loop waits for another's lock: a transaction that has met one gives up in a moment, those whose rows are locked are
set aside, and the others advance. What was set aside is looked at again, without waiting, until its rows are free.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from pgflow import faults
from pgflow.errors import LeaseLost, PgflowError
from pgflow.history.location import display
from pgflow.model.writes import Advance
from pgflow.observe.worker_metrics import WorkerMetrics
from pgflow.store.database.background import BackgroundTask
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.connections import Database, Line, is_locked_out, is_lost
from pgflow.store.database.sqlstate import CONFLICT, DATA, FENCED_OUT
from pgflow.store.leasing.fencing import Fence, fence_of

_log = logging.getLogger("pgflow.store")

GROUP = 20
"""The most loops that one transaction advances: larger groups lock whole index pages and abort each other."""

FIRST_PAUSE = 0.005
"""Seconds before a transaction is repeated; doubled after each try, and jittered."""

LONGEST_PAUSE = 0.5
"""The most seconds before a transaction is repeated."""

KNOWN_LOOPS = 50_000
"""The most loops for which this process remembers that it has swept their archive."""

LOCK_WAIT = 50
"""Milliseconds that a transaction waits for a row that another session has locked: longer than the journal holds one,
and less than the server takes to look for deadlocks.
"""

Verdict = tuple[Advance, datetime | BaseException]


class LoopAdvancer:
    """Implements `pgflow.ports.LoopsPort` for one worker on one event loop.

    Example:
        advancer = LoopAdvancer(database, worker_id)
        advancer.start()
        advancer.advance(advance)     # advance.on_commit is called after the commit
        await advancer.close()
    """

    def __init__(
        self,
        database: Database,
        worker: int | Fence,
        *,
        on_death: Callable[[BaseException], None] | None = None,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        """
        Args:
            database: Where the loops' rows are.
            worker: The worker whose leases fence the writes.
            on_death: Called when it stops, since its own code raised an error: it advances nothing more.
            metrics: Counts what was advanced, and conflicts; None: nothing is counted.
        """
        self._database = database
        self._fence = fence_of(worker)
        self._metrics = metrics
        self._line = Line(database, "loops", self._fence, lock_timeout=LOCK_WAIT)
        self._waiting: deque[Advance] = deque()
        self._sent: list[Advance] = []
        self._aside: deque[Advance] = deque()
        """Advancements that wait because another session has locked a row."""
        self._aside_backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        self._aside_until = 0.0
        self._arrived = asyncio.Event()
        self._swept: OrderedDict[tuple[UUID, str], int] = OrderedDict()
        self._background = BackgroundTask(self._run, "pgflow loops", on_death)
        self.retries = 0
        """Transactions that were repeated after a serialization failure or a deadlock."""
        self.held_up = 0
        """Transactions that gave up because another session had locked a row."""

    def start(self) -> None:
        """Begin to advance; call it on the event loop that the callbacks belong to."""
        self._background.start()

    def advance(self, advance: Advance) -> None:
        """Take one advancement; it is in the next transaction. At most one of a loop may be under way."""
        self._waiting.append(advance)
        self._arrived.set()

    async def close(self) -> None:
        """Stop advancing. What still waits is refused with `LeaseLost`."""
        await self._background.stop()
        await self._line.drop()
        left = [*{id(advance): advance for advance in (*self._sent, *self._aside, *self._waiting)}.values()]
        self._sent = []
        self._aside.clear()
        self._waiting.clear()
        for advance in left:
            self._settle(advance, LeaseLost("the worker's loops were closed before this one was advanced"))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._sent, looked_at = await self._next()
            started = time.monotonic()
            verdicts = await self._advance(self._sent, look=looked_at)
            if self._metrics is not None:
                advanced = [advance for advance, verdict in verdicts if isinstance(verdict, datetime)]
                self._metrics.advanced(advanced, time.monotonic() - started)
            self._sent = []
            if not self._aside:
                self._aside_backoff.reset()
            loop.call_soon(self._deliver, verdicts)
            del verdicts  # they would keep the last runs in memory until the next ones arrive

    async def _next(self) -> tuple[list[Advance], bool]:
        """The next group, and whether it was set aside before: then it is to be looked at first."""
        while True:
            seconds = self._aside_until - time.monotonic() if self._aside else None
            if seconds is not None and seconds <= 0:
                self._aside_until = time.monotonic() + self._aside_backoff.spread_pause()
                return [self._aside.popleft() for _ in range(min(GROUP, len(self._aside)))], True
            if self._waiting:
                return [self._waiting.popleft() for _ in range(min(GROUP, len(self._waiting)))], False
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._arrived.wait()

    def _set_aside(self, group: Sequence[Advance]) -> None:
        """Try these advancements again later."""
        if not self._aside:
            self._aside_until = max(self._aside_until, time.monotonic() + FIRST_PAUSE)
        self._aside.extend(group)

    async def _without_busy(self, group: Sequence[Advance]) -> list[Advance]:
        """Put aside those whose rows another session has locked, and return the others."""
        cursor = await (await self._line.get()).execute(
            self._database.statement("loops_busy"),
            {
                "workflow_ids": [advance.workflow_id for advance in group],
                "locations": [advance.location for advance in group],
            },
            prepare=True,
        )
        busy = {number for (number,) in await cursor.fetchall()}
        if busy:
            self._set_aside([group[number] for number in sorted(busy)])
        return [advance for number, advance in enumerate(group) if number not in busy]

    def _deliver(self, verdicts: list[Verdict]) -> None:
        for advance, verdict in verdicts:
            self._settle(advance, verdict)

    def _settle(self, advance: Advance, verdict: datetime | BaseException) -> None:
        try:
            if isinstance(verdict, datetime):
                advance.on_commit(advance, verdict)
            else:
                advance.on_refused(advance, verdict)
        except Exception:
            # An error in one run's callback must not keep the others from being called.
            _log.exception(
                "a loop's callback of workflow %s failed",
                advance.workflow_id,
                extra={"workflow_id": str(advance.workflow_id)},
            )

    async def _advance(self, group: Sequence[Advance], *, look: bool = False) -> list[Verdict]:
        """Advance a group, as often as it takes; one by one if one of them keeps the others from advancing.

        Args:
            look: Whether to set those aside first whose rows are locked.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        met_locks = 0
        while group:
            try:
                if look:
                    look, group = False, await self._without_busy(group)
                    continue
                return await self._transact(group)
            except psycopg.Error as error:
                state = error.sqlstate or ""
                if is_locked_out(error):
                    self.held_up += 1
                    met_locks += 1
                    look = True
                    if met_locks == 1:
                        continue
                    if len(group) == 1:  # the locked row is none of those that are looked at
                        self._set_aside(group)
                        return []
                    return await self._apart(group)
                if state in CONFLICT:
                    self.retries += 1
                    if self._metrics is not None:
                        self._metrics.loops_conflicted()
                elif state == FENCED_OUT and not self._fence.refused(self._line.under):
                    continue
                elif state == FENCED_OUT or state[:2] in DATA or _is_unsendable(error):
                    if len(group) == 1:
                        return [(group[0], _refusal(group[0], error))]
                    return await self._apart(group)
                elif (connection := self._line.current) is None or is_lost(error, connection):
                    _log.warning("the connection of loops broke, what was sent is repeated: %s", error)
                    await self._line.drop()
                else:
                    _log.warning("advancing loops was put off by the database and is tried again: %s", error)
            except UnicodeError as error:
                if len(group) == 1:
                    return [(group[0], error)]
                return await self._apart(group)
            await asyncio.sleep(backoff.pause() * random.random())
            if backoff.upcoming > FIRST_PAUSE * 8 and len(group) > 1:
                return await self._apart(group)  # smaller groups conflict less
        return []

    async def _apart(self, group: Sequence[Advance]) -> list[Verdict]:
        half = len(group) // 2
        return await self._advance(group[:half]) + await self._advance(group[half:])

    async def _transact(self, group: Sequence[Advance]) -> list[Verdict]:
        """One transaction; without a test's hooks, all its statements leave in one flush."""
        text = self._database.statement
        await faults.reach("loops.before")
        fence: dict[str, Any] = {
            "workflow_ids": [advance.workflow_id for advance in group],
            "epochs": [advance.epoch for advance in group],
        }
        async with self._line.transaction(serializable=True) as transaction:
            fence["worker"] = self._line.under
            progress = await transaction.execute(text("loops_progress"), self._parameters(group), prepare=True)
            await self._line.reached("loops.after_progress")
            moved = await transaction.execute(text("loops_forget"), prepare=True)
            await self._line.reached("loops.after_move")
            await transaction.execute(text("loops_trim_archive"), prepare=True)
            await self._line.reached("loops.after_trim")
            await transaction.execute(text("loops_fence"), fence, prepare=True)
            await self._line.reached("loops.before_commit")
        found = {number: at for number, at, _ in await progress.fetchall()}
        for number, count in await moved.fetchall():
            group[number].moved = count
        for advance in group:
            self._remember(advance)
        return [
            (advance, found[number] if number in found else _missing(advance)) for number, advance in enumerate(group)
        ]

    def _parameters(self, group: Sequence[Advance]) -> dict[str, Any]:
        return {
            "workflow_ids": [advance.workflow_id for advance in group],
            "locations": [advance.location for advance in group],
            "turns": [advance.turns for advance in group],
            "keeps": [advance.keep for advance in group],
            "states": [advance.state for advance in group],
            "outputs": [advance.output for advance in group],
            "seqs": [advance.seq for advance in group],
            "started": [advance.started for advance in group],
            "sweeps": [self._swept.get((advance.workflow_id, advance.location)) != advance.keep for advance in group],
        }

    def _remember(self, advance: Advance) -> None:
        """Note that the archive of this loop holds no more than it should: from now on it is trimmed turn by turn."""
        key = (advance.workflow_id, advance.location)
        if advance.breaks:
            self._swept.pop(key, None)
        else:
            self._swept[key] = advance.keep
            self._swept.move_to_end(key)
            if len(self._swept) > KNOWN_LOOPS:
                self._swept.popitem(last=False)


def _is_unsendable(error: psycopg.Error) -> bool:
    """Whether a value could not even be sent."""
    return error.sqlstate is None and isinstance(error, psycopg.DataError)


def _refusal(advance: Advance, error: psycopg.Error) -> BaseException:
    if error.sqlstate == FENCED_OUT:
        return LeaseLost(
            f"workflow {advance.workflow_id}: this worker no longer holds the lease of epoch {advance.epoch}; the "
            f"turns of the loop at {display(advance.location)} were not forgotten, whoever holds the lease now does it"
        )
    return error


def _missing(advance: Advance) -> PgflowError:
    return PgflowError(
        f"workflow {advance.workflow_id}: expected the row of the loop at {display(advance.location)} in active "
        "history, found none. Was it removed by hand? Restore it, or fork the workflow before the loop."
    )
