"""Mailboxes: how what was sent to workflows reaches them.

    inserted (no lock on the receiver) --deliver--> numbered in the receiver's mailbox --claim or attend--> in memory
    --> consumed

Any worker delivers anything, in batches, hinted and by sweep: the indexes of what is not delivered are empty most of
the time. A run that is in a worker's memory is told by that worker: what it delivers itself it hands over at once, what
others have delivered it finds by `attend`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from pgflow import faults
from pgflow.model.claimed import Arrived
from pgflow.model.rows import Signal
from pgflow.store.database.connections import Database, Line
from pgflow.store.database.pipeline import flush, rows_of
from pgflow.store.leasing.fencing import Fence, fence_of

AT_ONCE = 1_000
"""The most signals, and the most requests, that one statement delivers."""

DEADLINES_AT_ONCE = 100
"""The most workflows that one statement cancels by their deadlines."""

SIGNALS = 10_000
"""The most signals of one mailbox that are read at once."""


@dataclass(slots=True)
class DeliveryRound:
    """The result of one round of deliveries."""

    arrived: list[Arrived] = field(default_factory=list)
    """News for runs that this worker holds."""
    woken: set[str] = field(default_factory=set)
    """The queues of runs that were woken."""
    owners: set[int] = field(default_factory=set)
    """Other workers, whose runs have news."""
    unclaimed: bool = False
    """Whether some were cancelled that no worker has ever had: they are to be ended with those whose deadline passes.
    """
    moved: bool = False
    """Whether this worker has to look for news of its own runs, since its number moved while the statement was away."""
    passed_over: list[UUID] = field(default_factory=list)
    """Receivers that were locked by another session: what was sent to them waits for the next round."""


class PassedDeadline(NamedTuple):
    """A workflow whose deadline has passed. `Subject` of records about it."""

    workflow_id: UUID
    name: str
    timeout: float
    ended: bool
    """Whether it has failed by that, since no worker has ever had it; else it is being cancelled."""
    error: str | None
    """What it has failed with."""


@dataclass(slots=True)
class PassedDeadlines:
    """What came of a look for deadlines."""

    passed: list[PassedDeadline] = field(default_factory=list)
    next_in: float | None = None
    """Seconds until the next one; below 0: it is due, and somebody has the workflow locked. None: there is none."""


class DeliveryQueue:
    """Delivers what was sent to workflows, for one worker.

    Example:
        queue = DeliveryQueue(database, worker_id)
        delivery = await queue.deliver()
    """

    def __init__(self, database: Database, worker: int | Fence) -> None:
        self._database = database
        self._fence = fence_of(worker)
        self._line = Line(database, "mailbox")

    async def close(self) -> None:
        """Close the connection."""
        await self._line.drop()

    async def deliver(self) -> DeliveryRound:
        """Deliver everything that waits, a batch at a time; receivers that are locked are passed over.

        Raises:
            psycopg.Error: The database refused; what was delivered before stays delivered, the rest waits for the next
            call.
        """
        delivery = DeliveryRound()
        after_signal = after_request = 0
        while True:
            connection = await self._line.get()
            await faults.reach("mailbox.before_deliver")
            looked_at = time.monotonic()
            number = self._fence.id  # it may move before the answer has come
            asked = {
                "worker": number,
                "after_signal": after_signal,
                "after_request": after_request,
                "passed_over": delivery.passed_over,
                "limit": AT_ONCE,
            }
            (answer,) = await flush(connection, (self._database.statement("mail_deliver"), asked))
            rows = rows_of(answer)
            self._add(delivery, rows, looked_at, number)
            signals, last_signal, requests, last_request, passed_over = rows[0][:5]
            delivery.passed_over += passed_over
            if signals < AT_ONCE and requests < AT_ONCE:
                return delivery
            after_signal = after_signal if last_signal is None else last_signal
            after_request = after_request if last_request is None else last_request

    def _add(self, delivery: DeliveryRound, rows: list[tuple[Any, ...]], looked_at: float, number: int) -> None:
        for _, _, _, _, _, id, queue, status, worker, epoch, after, mailbox, cancel, pause, timed_out, *signal in rows:
            if id is None:
                continue
            if status == "pending":
                delivery.woken.add(queue)
                delivery.unclaimed = delivery.unclaimed or (cancel and epoch == 0)
            elif status == "running" and worker != number:
                if self._fence.had(worker):
                    delivery.moved = True
                else:
                    delivery.owners.add(worker)
            elif status == "running":
                last = delivery.arrived[-1] if delivery.arrived else None
                if last is None or last.workflow_id != id or last.mailbox != mailbox:
                    last = Arrived(id, epoch, after, mailbox, cancel, pause, timed_out, looked_at=looked_at)
                    delivery.arrived.append(last)
                if signal[0] is not None:
                    last.signals.append(Signal(*signal))

    async def pass_deadlines(self) -> PassedDeadlines:
        """Cancel what is due by its deadline, a batch at a time; what somebody has locked waits for the next call.

        Raises:
            psycopg.Error: The database refused; what was done before stays done.
        """
        found = PassedDeadlines()
        while True:
            connection = await self._line.get()
            await faults.reach("deadlines.before")
            cursor = await connection.execute(self._database.statement("deadline_next"), prepare=True)
            ((found.next_in,),) = await cursor.fetchall()
            if found.next_in is None or found.next_in > 0:
                return found
            cursor = await connection.execute(
                self._database.statement("deadlines_pass"), {"most": DEADLINES_AT_ONCE}, prepare=True
            )
            rows = await cursor.fetchall()
            found.passed.extend(PassedDeadline(*row) for row in rows)
            if len(rows) < DEADLINES_AT_ONCE:
                cursor = await connection.execute(self._database.statement("deadline_next"), prepare=True)
                ((found.next_in,),) = await cursor.fetchall()
                return found

    async def attend(self, seen: Mapping[UUID, int], pausing: Collection[UUID] = ()) -> list[Arrived]:
        """Look for news of the runs that this worker holds.

        Args:
            seen: The last place in the mailbox that each run in memory has seen.
            pausing: Those of them that are to be paused, as far as this worker knows; that one no longer is counts as
                news.

        Raises:
            psycopg.Error: The database refused.
        """
        connection = await self._line.get()
        looked_at = time.monotonic()
        cursor = await connection.execute(
            self._database.statement("mail_attend"), {"worker": self._fence.id, "pausing": list(pausing)}, prepare=True
        )
        news: dict[UUID, Arrived] = {}
        behind: dict[UUID, int] = {}
        for id, epoch, mailbox, cancel, pause, timed_out in await cursor.fetchall():
            known = seen.get(id)
            if known is not None and (mailbox > known or cancel or pause or id in pausing):
                news[id] = Arrived(id, epoch, known, mailbox, cancel, pause, timed_out, looked_at=looked_at)
                if mailbox > known:
                    behind[id] = known
        if behind:
            asked = {
                "workflow_ids": list(behind),
                "seen": list(behind.values()),
                "limit": SIGNALS,
            }
            cursor = await connection.execute(self._database.statement("mail_read"), asked, prepare=True)
            for id, *values in await cursor.fetchall():
                signal = Signal(*values)
                news[id].signals.append(signal)
                news[id].mailbox = max(news[id].mailbox, signal.number)  # delivered between the two statements
        return list(news.values())

    async def gone(self, ids: Collection[UUID]) -> list[UUID]:
        """Which of these workflows somebody has ended.

        Raises:
            psycopg.Error: The database refused.
        """
        connection = await self._line.get()
        cursor = await connection.execute(
            self._database.statement("mail_gone"), {"workflow_ids": list(ids)}, prepare=True
        )
        return [id for (id,) in await cursor.fetchall()]
