"""Forgetting: the finished turns of loops leave active history, a few loops in one serializable transaction.

    BEGIN  ->  progress  ->  move  ->  trim  ->  fence  ->  COMMIT          (one flush)

The turn that follows is running and writing meanwhile, through the journal's READ COMMITTED statements, against which
SERIALIZABLE protects nothing. What protects its rows: the bounds of what moves are stored locations, computed from the
progress that the loop's own row holds. What keeps out a worker that has lost its lease: the fence, which locks the
runs' rows last, so that they are locked for a moment only, and undoes everything when one is not this worker's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import psycopg

from pgflow import faults
from pgflow.errors import LeaseLost, PgflowError
from pgflow.execution.ports import Advance
from pgflow.history.location import display
from pgflow.store.connections import Database, Line, is_lost, tell_of_death
from pgflow.store.fencing import Fence, fence_of

_log = logging.getLogger("pgflow.store")

GROUP = 20
"""Loops that one transaction advances, at most: larger groups lock whole index pages and abort each other."""

FIRST_PAUSE = 0.005
"""Seconds before a transaction is repeated, at first; doubled from there on, and jittered."""

LONGEST_PAUSE = 0.5
"""Seconds before a transaction is repeated, at most."""

KNOWN_LOOPS = 50_000
"""Loops of which this process remembers that it has swept their archive."""

_CONFLICT = ("40001", "40P01")
_FENCED_OUT = "22012"
_POISON = ("22", "23", "54")

Verdict = tuple[Advance, datetime | BaseException]


class LoopAdvancer:
    """Implements `pgflow.execution.ports.Loops` for one worker on one event loop.

    Example:
        advancer = LoopAdvancer(database, worker_id)
        advancer.start()
        advancer.advance(advance)     # advance.on_commit is called after the commit
        await advancer.close()
    """

    def __init__(
        self, database: Database, worker: int | Fence, *, on_death: Callable[[BaseException], None] | None = None
    ) -> None:
        """
        Args:
            database: Where the loops' rows are.
            worker: The worker whose leases fence the writes.
            on_death: Called when it stops by an error of its own: it advances nothing more.
        """
        self._database = database
        self._fence = fence_of(worker)
        self._on_death = on_death
        self._line = Line(database, "loops", self._fence)
        self._waiting: deque[Advance] = deque()
        self._sent: list[Advance] = []
        self._arrived = asyncio.Event()
        self._swept: OrderedDict[tuple[UUID, str], int] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self.retries = 0
        """Transactions that were repeated after a serialization failure or a deadlock."""

    def start(self) -> None:
        """Begin to advance; call it on the event loop that the callbacks belong to."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="pgflow loops")
            self._task.add_done_callback(partial(tell_of_death, then=self._on_death))

    def advance(self, advance: Advance) -> None:
        """Take one advancement; it is in the next transaction. At most one of a loop may be under way."""
        self._waiting.append(advance)
        self._arrived.set()

    async def close(self) -> None:
        """Stop. What still waits is refused with `LeaseLost`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._line.drop()
        left = [*self._sent, *self._waiting]
        self._sent = []
        self._waiting.clear()
        for advance in left:
            self._settle(
                advance, LeaseLost("the worker's loops were closed before this one was advanced")
            )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            count = min(GROUP, len(self._waiting))
            self._sent = [self._waiting.popleft() for _ in range(count)]
            verdicts = await self._advance(self._sent)
            self._sent = []
            loop.call_soon(self._deliver, verdicts)
            del verdicts  # they would keep the last runs in memory until the next ones come

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
            # One run's callback must not keep the others from hearing of theirs.
            _log.exception("a loop's callback of workflow %s failed", advance.workflow_id)

    async def _advance(self, group: Sequence[Advance]) -> list[Verdict]:
        """Advance a group, as often as it takes; apart when one of them keeps the others from it."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._transact(group)
            except psycopg.Error as error:
                state = error.sqlstate or ""
                if state in _CONFLICT:
                    self.retries += 1
                elif state == _FENCED_OUT and not self._fence.refused(self._line.under):
                    continue
                elif state == _FENCED_OUT or state[:2] in _POISON or _is_unsendable(error):
                    if len(group) == 1:
                        return [(group[0], _refusal(group[0], error))]
                    return await self._apart(group)
                elif (connection := self._line.current) is None or is_lost(error, connection):
                    _log.warning(
                        "the connection of loops broke, what was sent is repeated: %s", error
                    )
                    await self._line.drop()
                else:
                    _log.warning("the database put off the advancement of loops: %s", error)
            except UnicodeError as error:
                if len(group) == 1:
                    return [(group[0], error)]
                return await self._apart(group)
            await asyncio.sleep(pause * random.random())
            pause = min(pause * 2, LONGEST_PAUSE)
            if pause > FIRST_PAUSE * 8 and len(group) > 1:
                return await self._apart(group)  # smaller groups conflict less

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
            progress = await transaction.execute(
                text("loops_progress"), self._parameters(group), prepare=True
            )
            await self._line.reached("loops.after_progress")
            moved = await transaction.execute(text("loops_move"), prepare=True)
            await self._line.reached("loops.after_move")
            await transaction.execute(text("loops_trim"), prepare=True)
            await transaction.execute(text("loops_signals"), prepare=True)
            await self._line.reached("loops.after_trim")
            await transaction.execute(text("loops_fence"), fence, prepare=True)
            await self._line.reached("loops.before_commit")
        found = {number: at for number, at, _ in await progress.fetchall()}
        for number, count in await moved.fetchall():
            group[number].moved = count
        for advance in group:
            self._remember(advance)
        return [
            (advance, found[number] if number in found else _missing(advance))
            for number, advance in enumerate(group)
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
            "sweeps": [
                self._swept.get((advance.workflow_id, advance.location)) != advance.keep
                for advance in group
            ],
        }

    def _remember(self, advance: Advance) -> None:
        """The archive of this loop holds no more than it should: from now on it is trimmed turn by turn."""
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
    if error.sqlstate == _FENCED_OUT:
        return LeaseLost(
            f"workflow {advance.workflow_id}: this worker no longer holds the lease of epoch {advance.epoch}; the turns "
            f"of the loop at {display(advance.location)} were not forgotten, whoever holds the lease now does it"
        )
    return error


def _missing(advance: Advance) -> PgflowError:
    return PgflowError(
        f"workflow {advance.workflow_id}: expected the row of the loop at {display(advance.location)} in active history, "
        "found none. Was it removed by hand? Restore it, or fork the workflow before the loop."
    )
