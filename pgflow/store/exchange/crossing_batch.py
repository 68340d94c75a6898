"""What workflows do to others: signals and children of many workflows in one statement, apart from their history.

    cross() -> waiting -> [batch in flight] -> committed -> on_done
                  ^              |-- sender's row busy, or a stranger's key --+
                  +-----------------------------------------------------------+    |-- lost or refused --> on_refused

Each batch is fenced by the leases of the workflows that make its crossings (`sql/crossing_fence.sql`): whose lease is
gone is refused alone. Ids are derived from where the steps stand, so that a batch whose connection broke is sent again,
and a crossing whose worker died is made again by the next one, without doing anything twice.

A child that must be unique may have to wait for a transaction of somebody who starts the same. Those go on a line of
their own, with a bounded wait, so that they hold up none of the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import psycopg

from pgflow import faults
from pgflow.errors import LeaseLost
from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent
from pgflow.model.writes import Crossing, Inquiry
from pgflow.store.database.background import BackgroundTask
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.connections import Database, Line, is_lost
from pgflow.store.database.pipeline import flush, rows_of
from pgflow.store.database.retrying import is_meeting, is_refusal
from pgflow.store.exchange.inquiries import Inquiries
from pgflow.store.leasing.fencing import Fence, fence_of
from pgflow.store.queries import dispatching, signalling

_log = logging.getLogger("pgflow.store")

AT_ONCE = 500
"""The most crossings in one statement."""

UNIQUE_AT_ONCE = 50
"""The most unique children in one statement."""

BYTES = 8 << 20
"""The most characters of inputs and bodies in one statement, unless a single one has more."""

KEY_WAIT = "50ms"
"""How long a statement waits for the transaction of a stranger who starts the same: long enough for a dispatch under
way, and less than it takes the server to look for deadlocks, so that the stranger's never is their victim."""

STUCK_PAUSE = 0.25
"""Seconds between two tries of what waits for a stranger's transaction."""

TRIES = 10
"""How often a crossing that meets its like is tried at once."""

FIRST_PAUSE = 0.002
"""Seconds before a batch of which nothing could be done is tried again; doubled after each try."""

LONGEST_PAUSE = 0.5
"""The most seconds between two attempts."""

_FENCE = "crossing_fence"

Answers = list[tuple[int, Any, Any]]
"""The result of a statement: numbers in the batch, answers (None: ask again), and which workers to hint."""


class CrossingSender:
    """Sends the crossings of one kind, one batch after the other, on its own connection.

    Args:
        purpose: a word that `pg_stat_activity` shows for the connection.
        send: executes a batch on the line.
        most: the most crossings in a batch.
        hint: called after each commit with those that it concerns.
        on_death: called when it stops, since its own code raised an error.
    """

    def __init__(
        self,
        database: Database,
        fence: Fence,
        purpose: str,
        send: Callable[[Line, dict[str, Any], list[Any]], Any],
        most: int,
        hint: Callable[[set[Any]], None],
        on_death: Callable[[BaseException], None] | None,
    ) -> None:
        self._database = database
        self._fence = fence
        self._purpose = purpose
        self._execute = send
        self._most = most
        self._hint = hint
        self._line = Line(database, purpose, fence)
        self._waiting: deque[Crossing] = deque()
        self._stuck: deque[Crossing] = deque()
        self._stuck_until = 0.0
        self._unsettled: dict[int, Crossing] = {}
        self._arrived = asyncio.Event()
        self._background = BackgroundTask(self._run, f"pgflow {purpose}", on_death)

    def start(self) -> None:
        """Begin; call it on the event loop that the callbacks belong to."""
        self._background.start()

    def add(self, crossing: Crossing) -> None:
        """Take one crossing."""
        self._unsettled[id(crossing)] = crossing
        self._waiting.append(crossing)
        self._arrived.set()

    async def close(self) -> None:
        """Stop. What still waits is refused with `LeaseLost`."""
        await self._background.stop()
        await self._line.drop()
        for crossing in list(self._unsettled.values()):
            self._settle(crossing, LeaseLost("the worker's crossings were closed before this one was made"))

    async def _run(self) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            batch = await self._next_batch()
            left = await self._make(batch)
            self._waiting.extendleft(reversed(left))
            if len(left) < len(batch):
                backoff.reset()
            else:
                await self._until_arrival(backoff.spread_pause())

    async def _next_batch(self) -> list[Crossing]:
        while True:
            pause = self._stuck_until - time.monotonic() if self._stuck else None
            if pause is not None and pause <= 0:
                self._stuck_until = time.monotonic() + STUCK_PAUSE
                return [self._stuck.popleft()]
            if self._waiting:
                break
            await self._until_arrival(pause)
        batch: list[Crossing] = []
        held = 0
        while self._waiting and len(batch) < self._most:
            held += _size(self._waiting[0])
            if batch and held > BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _until_arrival(self, seconds: float | None) -> None:
        self._arrived.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    async def _make(self, batch: list[Crossing]) -> list[Crossing]:
        """Make the crossings of a batch; those that have to be tried again come back."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        tries = 0
        while True:
            tries += 1
            try:
                return await self._send(batch)
            except (psycopg.Error, UnicodeError) as error:
                stuck = isinstance(error, psycopg.errors.LockNotAvailable)
                refused = is_refusal(error) or (tries > TRIES and is_meeting(error))
                if (stuck or refused) and len(batch) > 1:
                    return await self._apart(batch)
                if stuck:
                    self._stuck.append(batch[0])
                    return []
                if refused:
                    self._settle(batch[0], error)
                    return []
                connection = self._line.current
                if connection is None or is_lost(error, connection):
                    await self._line.drop()
                if not is_meeting(error):
                    _log.warning(
                        "a batch of signals and children was put off by the database and is sent again: %s", error
                    )
            await asyncio.sleep(backoff.spread_pause())

    async def _apart(self, batch: list[Crossing]) -> list[Crossing]:
        half = len(batch) // 2
        left = await self._make(batch[:half])
        # What is left goes first: one workflow's signals stay in the order in which it sent them.
        return left + batch[half:] if left else await self._make(batch[half:])

    async def _send(self, batch: list[Crossing]) -> list[Crossing]:
        await faults.reach("crossings.before")
        parameters: dict[str, Any] = {
            "sender_ids": [crossing.workflow_id for crossing in batch],
            "epochs": [crossing.epoch for crossing in batch],
            "locations": [crossing.location for crossing in batch],
        }
        answers: Answers = await self._execute(self._line, parameters, [crossing.command for crossing in batch])
        await faults.reach("crossings.after")
        answered = {number for number, _, _ in answers}
        skipped = [crossing for number, crossing in enumerate(batch) if number not in answered]
        left = [batch[number] for number, answer, _ in answers if answer is None]
        left += await self._still_held(skipped)
        self._hint({concerned for _, _, concerned in answers if concerned is not None})
        for number, answer, _ in answers:
            if answer is not None:
                self._note(batch[number], answer)
                self._settle(batch[number], answer)
        return left

    def _note(self, crossing: Crossing, answer: object) -> None:
        """Remember what was done last: the database must have it for as long as memory builds on it."""
        if isinstance(answer, Dispatched) and answer.id is not None:
            self._fence.note("child", answer.id)
        elif isinstance(answer, Sent) and answer.accepted:
            self._fence.note("signal", crossing.command.id)

    async def _still_held(self, skipped: list[Crossing]) -> list[Crossing]:
        """Those whose workflows this worker still holds: their rows were locked. The others are refused."""
        if not skipped:
            return []
        connection = await self._line.get()
        cursor = await connection.execute(
            self._database.statement("crossing_held"),
            {
                "worker": self._line.under,
                "sender_ids": [crossing.workflow_id for crossing in skipped],
                "epochs": [crossing.epoch for crossing in skipped],
            },
            prepare=True,
        )
        held = {number for (number,) in await cursor.fetchall()}
        if not self._fence.refused(self._line.under):
            return skipped
        for number, crossing in enumerate(skipped):
            if number not in held:
                self._settle(crossing, _lost(crossing))
        return [skipped[number] for number in sorted(held)]

    def _settle(self, crossing: Crossing, answer: object) -> None:
        del self._unsettled[id(crossing)]
        try:
            if isinstance(answer, BaseException):
                crossing.on_refused(crossing, answer)
            else:
                crossing.on_done(crossing, answer)
        except Exception:
            # One run's callback must not keep the others from hearing of theirs.
            _log.exception(
                "a crossing's callback of workflow %s failed",
                crossing.workflow_id,
                extra={"workflow_id": str(crossing.workflow_id)},
            )


class Crossings:
    """Implements `pgflow.ports.CrossingsPort` for one worker on one event loop.

    Example:
        crossings = Crossings(database, worker_id, started, sent)
        crossings.start()
        crossings.cross(crossing)     # crossing.on_done is called after the commit
        await crossings.close()
    """

    def __init__(
        self,
        database: Database,
        worker: int | Fence,
        started: Callable[[Iterable[str]], None],
        sent: Callable[[Iterable[int]], None],
        expect: Callable[[float], None] = lambda seconds: None,
        *,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        """
        Args:
            database: Where other workflows are.
            worker: The worker whose leases fence the crossings.
            started: Called after a commit with the queues that have new work.
            sent: Called after a commit with the workers that hold the receivers of the signals, or held them last; 0:
                any.
            expect: Called after a commit with the seconds until the deadline of a child.
            on_death: Called when a part of it stops, since its own code raised an error.
        """
        self._database = database
        self._expect = expect
        self._fence = fence = fence_of(worker)
        self._signals = CrossingSender(database, fence, "signals", self._send_signals, AT_ONCE, sent, on_death)
        self._children = CrossingSender(database, fence, "children", self._send_children, AT_ONCE, started, on_death)
        self._unique = CrossingSender(
            database, fence, "unique children", self._send_unique, UNIQUE_AT_ONCE, started, on_death
        )
        self._inquiries = Inquiries(database, on_death=on_death)

    def start(self) -> None:
        """Begin; call it on the event loop that the callbacks belong to."""
        for sender in (self._signals, self._children, self._unique):
            sender.start()
        self._inquiries.start()

    async def close(self) -> None:
        """Stop. Crossings that still wait are refused with `LeaseLost`, questions are not answered."""
        for sender in (self._signals, self._children, self._unique):
            await sender.close()
        await self._inquiries.close()

    def cross(self, crossing: Crossing) -> None:
        """Take one crossing; it is in the next batch of its sort."""
        command = crossing.command
        if isinstance(command, Sending):
            self._signals.add(crossing)
        elif command.unique:
            self._unique.add(crossing)
        else:
            self._children.add(crossing)

    def ask(self, inquiry: Inquiry) -> None:
        """Take one question; it is in the next statement."""
        self._inquiries.ask(inquiry)

    async def _send_signals(self, line: Line, parameters: dict[str, Any], commands: list[Sending]) -> Answers:
        text = self._text("signal_crossing", "signal_send")
        parameters |= signalling.columns_of(commands)
        rows = await _rows(line, text, parameters)
        answers = [(row[0], Sent(*row[1:])) for row in rows]
        return [(number, sent, sent.worker if sent.accepted else None) for number, sent in answers]

    async def _send_children(self, line: Line, parameters: dict[str, Any], commands: list[Dispatch]) -> Answers:
        text = self._text("dispatch_crossing", "dispatch")
        parameters |= dispatching.columns_of(commands)
        return self._started(await _rows(line, text, parameters), commands)

    async def _send_unique(self, line: Line, parameters: dict[str, Any], commands: list[Dispatch]) -> Answers:
        text = self._text("dispatch_crossing", "dispatch")
        parameters |= dispatching.columns_of(commands)
        async with line.transaction() as transaction:
            await transaction.execute(
                self._database.statement("lock_timeout"), {"lock_timeout": KEY_WAIT}, prepare=True
            )
            cursor = await transaction.execute(text, {**parameters, "worker": line.under}, prepare=True)
        answers = self._started(await cursor.fetchall(), commands)
        # A workflow that found another one in place of its child is not its parent, but asks for a notice of its end
        # too.
        others = {
            number: answer.id
            for number, answer, _ in answers
            if answer is not None and answer.id != commands[number].id
        }
        if not others:
            return answers
        await faults.reach("crossings.before_wait")
        wanted = {
            "workflow_ids": list(others.values()),
            "waiters": [parameters["sender_ids"][number] for number in others],
            "locations": [parameters["locations"][number] for number in others],
        }
        rows = await _rows(line, self._database.statement("crossing_wait"), wanted)
        busy = {id for (id,) in rows}
        return [(number, None if others.get(number) in busy else answer, queue) for number, answer, queue in answers]

    def _started(self, rows: Sequence[tuple[Any, ...]], commands: list[Dispatch]) -> Answers:
        answers: Answers = []
        for number, id, name, created, queue, older in rows:
            command = commands[number]
            if command.timeout is not None:
                self._expect(command.timeout)
            dispatched = Dispatched(id, name, created, older)
            due = created and command.run_at is None
            answers.append((number, None if dispatched.unseen else dispatched, queue if due else None))
        return answers

    def _text(self, *names: str) -> bytes:
        return b"".join(map(self._database.statement, (_FENCE, *names)))


async def _rows(line: Line, text: bytes, parameters: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
    connection = await line.get()
    (answer,) = await flush(connection, (text, {**parameters, "worker": line.under}))
    return rows_of(answer)


def _size(crossing: Crossing) -> int:
    command = crossing.command
    return len(command.body if isinstance(command, Sending) else command.input)


def _lost(crossing: Crossing) -> LeaseLost:
    return LeaseLost(
        f"workflow {crossing.workflow_id}: this worker no longer holds the lease of epoch {crossing.epoch}, nothing "
        "was done to other workflows; whoever holds it now goes on from the recorded history"
    )
