"""The number that a worker writes under, and how it moves; after that, nothing sent before takes effect any more.

    one number --a connection was lost, or leads to another server--> in doubt --one transaction--> another number
                                                                         |
                                                                         '--> behind, or not registered any more: the
                                                                         lease is lost

Every write of a worker is fenced by its number: `runs.worker_id` under the run's row lock, `workers.id` for claims.
What was sent on a connection that is lost may reach the server at any later moment. So before anything is sent again
the worker takes another number: one transaction moves all runs that are in its memory to it, frees those that a claim
has taken whose answer was lost, and removes the old number. Whatever was sent under the old number then meets a fence
that has moved, whichever way it takes.

The same transaction asks whether the database still has what it had acknowledged. If it has not (a failover to a
standby that was behind, a restored copy), what is in memory means nothing any more: the lease counts as lost, and all
goes on from the rows.

Nothing here costs a write anything as long as no connection breaks.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from pgflow import faults, forking
from pgflow.errors import LeaseLost, PgflowError
from pgflow.model.rows import RunKey
from pgflow.store.database import pooler
from pgflow.store.database.connections import Database, Fencing, Line
from pgflow.store.database.incarnation import Incarnation, read_incarnation
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.database.replication import check_replicated

_log = logging.getLogger("pgflow.store")

LOCK_WAIT = "1s"
"""How long a move waits for runs that are locked, most probably by what was sent before. It gives up runs that stay
locked for longer.
"""

RECENT = 10.0
"""Seconds after which a move no longer looks for the rows that were written for another workflow: they may have been
removed by then (`sweeping.MOMENT`).
"""


def fresh_number() -> int:
    """A number that no worker has had. It is random, since a restored database would give out the next ones of a
    sequence again.
    """
    return secrets.randbits(53) | 1


class HeldRun(NamedTuple):
    """A run in this worker's memory, and what it knows to be committed."""

    workflow_id: UUID
    epoch: int
    mailbox: int
    """The last place in its mailbox that it has seen."""
    location: str | None
    """The location of the row that was committed last; None: there is none, or it may have been forgotten."""
    ended: bool
    """Whether that row had ended."""

    @property
    def key(self) -> RunKey:
        """What the run's writes are fenced by."""
        return RunKey(str(self.workflow_id), self.epoch)


class Fence(Fencing):
    """The number of one registration; this one never moves.

    Args:
        worker_id: The registration's number.
    """

    def __init__(self, worker_id: int) -> None:
        self.id = worker_id
        """The number to write under."""
        self.former: set[int] = set()
        """Numbers that it had before."""
        self.incarnation: Incarnation | None = None
        """The server that it is registered at, as far as that is known."""
        self.in_doubt = False
        """Whether something that was sent may still take effect, or memory may be ahead of the database. Until that is
        settled nothing is begun.
        """
        self._done: dict[str, tuple[UUID, float]] = {}

    def refused(self, under: int) -> bool:
        """Whether a refusal of what was sent under a number is final. Otherwise the fence has moved meanwhile: send it
        again.
        """
        return under == self.id and not self.in_doubt

    def had(self, number: int) -> bool:
        """Whether this is, or was, its number."""
        return number == self.id or number in self.former

    def note(self, kind: str, id: UUID) -> None:
        """Remember that a "signal" or a "child" is durable in the database.

        Args:
            kind: Which of the two.
            id: Its id.
        """
        self._done[kind] = (id, time.monotonic())

    def recent(self, kind: str) -> UUID | None:
        """The last one noted, if that was less than `RECENT` seconds ago."""
        id, at = self._done.get(kind, (None, 0.0))
        return id if time.monotonic() - at < RECENT else None

    async def settle(self) -> None:
        """Wait until nothing is in doubt.

        Raises:
            LeaseLost: The lease is lost.
        """

    async def admit(self, connection: AsyncConnection, under: int | None) -> None:
        """Admit a connection that has just been opened; move first if something may still be on its way, or may be
        lost.

        Args:
            connection: The connection; it is in no transaction.
            under: The number under which something was sent on a connection that it replaces, if it replaces one.

        Raises:
            psycopg.Error: The move failed; try again with another connection.
            LeaseLost: The lease is lost.
        """

    def knows(self, found: Incarnation) -> bool:
        """Whether this is the server that the worker is registered at, not restarted since."""
        return True

    def doubt(self) -> None:
        """Something has changed: check what the database has. Called on the worker's event loop."""


def fence_of(worker: int | Fence) -> Fence:
    """The fence of a worker; for a number alone, a fence that never moves."""
    return worker if isinstance(worker, Fence) else Fence(worker)


class MovingFence(Fence):
    """The number of a worker that has a lease.

    Args:
        database: Where the worker is registered.
        worker_id: The number that it registers under.
        lost: Called when the lease turns out to be lost, with the reason.
    """

    def __init__(self, database: Database, worker_id: int, lost: Callable[[str], None]) -> None:
        super().__init__(worker_id)
        self.numbers: tuple[int, ...] = (worker_id,)
        """Numbers of which one is in the database; there are several while it is not known whether a move was
        committed. Read by the thread of the heartbeat.
        """
        self.held: Callable[[], Sequence[HeldRun]] = list
        """The runs in memory."""
        self.moved: Callable[[Collection[RunKey], int], None] = lambda kept, freed: None
        """Called after each move with the runs, and their epochs, that are still this worker's, and the number of those
        freed.
        """
        self._database = database
        self._lost = lost
        self._dead = False
        self._moving = asyncio.Lock()
        self._settled = asyncio.Event()
        self._settled.set()
        self._line: Line | None = None
        forking.watch(self)
        self._resolving: asyncio.Task[None] | None = None

    def after_fork(self) -> None:
        """The number belongs to the parent process: a child that goes on in the middle of its code writes nothing."""
        self._dead = self.in_doubt = True
        self._settled = asyncio.Event()
        self._settled.set()

    async def settle(self) -> None:
        """Wait until nothing is in doubt.

        Raises:
            LeaseLost: The lease is lost.
        """
        while self.in_doubt:
            self._check()
            await self._settled.wait()
        self._check()

    async def admit(self, connection: AsyncConnection, under: int | None) -> None:
        """Admit a connection that has just been opened, as `Fence.admit` says.

        Raises:
            psycopg.Error: The move failed; try again with another connection.
            LeaseLost: The lease is lost.
        """
        self._check()
        found = await read_incarnation(connection)
        while under == self.id or self.in_doubt or not (found is None or self.knows(found)):
            self._doubt()
            async with self._moving:
                self._check()
                if under == self.id or self.in_doubt or not (found is None or self.knows(found)):
                    await self._move(connection, found)
        if found is not None and pooler.is_shared(connection):
            pooler.pin(connection, found.timeline, found.started)

    def doubt(self) -> None:
        """A connection leads to another server, or to a restarted one: check what it has. Called on the worker's
        event loop.
        """
        if self._dead or self.in_doubt:
            return
        self._doubt()
        self._resolving = asyncio.get_running_loop().create_task(self._resolve(), name="pgflow fence")

    async def close(self) -> None:
        """End what is under way. Calls that wait raise `LeaseLost`."""
        self._dead = True
        self._settled.set()
        task, self._resolving = self._resolving, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _resolve(self) -> None:
        line = Line(self._database, "fence", self)
        try:
            await line.get()
        except (psycopg.Error, PgflowError) as error:
            if not self._dead:
                self._dead = True
                self._lost(f"what the database has cannot be seen: {error}")
        finally:
            await line.drop()

    def _check(self) -> None:
        if self._dead:
            raise LeaseLost(f"the lease of worker {self.id} is lost")

    def _doubt(self) -> None:
        self.in_doubt = True
        self._settled.clear()

    def knows(self, found: Incarnation) -> bool:
        """Whether this is the server that the worker is registered at, not restarted since."""
        return self.incarnation is None or found.same_start(self.incarnation)

    def _lose(self, reason: str) -> None:
        self._dead = True
        self._settled.set()  # those who wait find the lease lost
        self._lost(reason)
        raise LeaseLost(f"the lease of worker {self.id} is lost: {reason}")

    async def _move(self, connection: AsyncConnection, found: Incarnation | None) -> None:
        known = self.incarnation
        if found is not None and known is not None and (behind := found.behind(known)) is not None:
            self._lose(f"the database may have lost what it had acknowledged: {behind}")
        before, number = self.numbers, fresh_number()
        self.numbers = (*before, number)
        kept, freed = await self._transact(connection, list(before), number)
        self.former.add(self.id)
        self.id, self.numbers = number, (number,)
        if found is not None:
            self.incarnation = found
        self.in_doubt = False
        self._settled.set()
        _log.info(
            "worker %d goes on as worker %d with %d workflows: nothing that was sent before can take effect any more",
            before[0],
            number,
            len(kept),
        )
        self.moved(kept, freed)

    async def _transact(self, connection: AsyncConnection, numbers: list[int], number: int) -> tuple[set[RunKey], int]:
        """Move: which runs are still this worker's, and how many it held by a claim whose answer was lost."""
        text = self._database.statement
        ids: dict[str, Any] = {"numbers": numbers}
        await faults.reach("fence.before")
        async with connection.transaction():
            await connection.execute(*pooler.opening(connection, self._database.statement_timeout))
            await connection.execute(text("lock_timeout"), {"lock_timeout": LOCK_WAIT})
            for _ in range(2):  # the second look sees what the first one has waited for
                registered = await (await connection.execute(text("fence_lock"), ids)).fetchall()
                if registered:
                    break
            else:
                self._lose("its registration is gone or has expired")
            owned = dict(await self._owned(connection, ids))
            held = self.held()
            asked = {
                **ids,
                "workflow_ids": [each.workflow_id for each in held],
                "epochs": [each.epoch for each in held],
                "mailboxes": [each.mailbox for each in held],
                "locations": [each.location for each in held],
                "ended": [each.ended for each in held],
                "signal": self.recent("signal"),
                "child": self.recent("child"),
            }
            lacking = await (await connection.execute(text("fence_behind"), asked)).fetchall()
            if lacking:
                self._lose(f"the database lacks what it had acknowledged: {lacking[0][0]}")
            kept = {each.workflow_id: each.key for each in held if owned.get(each.workflow_id) == each.epoch}
            unknown = [id for id in owned if id not in kept]
            await connection.execute(
                text("fence_move"), {**ids, "number": number, "kept": list(kept), "unknown": unknown}
            )
            await faults.reach("fence.before_commit")
        check_replicated(connection)
        return set(kept.values()), len(unknown)

    async def _owned(self, connection: AsyncConnection, ids: dict[str, Any]) -> list[tuple[UUID, int]]:
        """Lock the runs that are this worker's, and return them with their epochs; those that somebody else keeps
        locked are given up.
        """
        text = self._database.statement("fence_runs")
        try:
            async with connection.transaction():
                return await (await connection.execute(text, ids)).fetchall()
        except psycopg.errors.LockNotAvailable:
            return await (await connection.execute(text.rstrip() + b" SKIP LOCKED", ids)).fetchall()
