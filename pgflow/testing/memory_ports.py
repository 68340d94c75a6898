"""The ports of the in-memory store: they answer what a run asks when their owner says so.

    write() -> writes -> commit() -> on_commit, on_refused
    advance() -> advances -> forget() -> on_commit, on_refused
    cross() -> crossings -> do() -> on_done, on_refused
    ask() -> inquiries -> answer() -> on_answer

Nothing is answered from within the call that asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pgflow.errors import LeaseLost, PgflowError
from pgflow.model.commands import Dispatched, Sent, Standing
from pgflow.model.writes import Advance, Crossing, Inquiry, Write
from pgflow.testing.memory_rows import RefusedValue


class Store(Protocol):
    """The store that answers: `Memory`, or a test that watches what passes on the way there."""

    def commit(self, worker: int, write: Write) -> datetime:
        """As `Memory.commit`."""
        ...

    def advance(self, worker: int, advance: Advance) -> datetime:
        """As `Memory.advance`."""
        ...

    def cross(self, worker: int, crossing: Crossing) -> Sent | Dispatched:
        """As `Memory.cross`."""
        ...

    def standings(self, ids: Iterable[UUID]) -> dict[UUID, Standing | None]:
        """As `Memory.standings`."""
        ...


class MemoryPorts:
    """Implements `JournalPort`, `LoopsPort` and `CrossingsPort` of `pgflow.ports` for one worker.

    Args:
        store: Where it writes.
        worker: The worker whose leases fence the writes.
    """

    def __init__(self, store: Store, worker: int) -> None:
        self.store = store
        self.worker = worker
        self.writes: list[Write] = []
        """What was handed over, in order, as all of these."""
        self.advances: list[Advance] = []
        self.crossings: list[Crossing] = []
        self.inquiries: list[Inquiry] = []

    def write(self, write: Write) -> None:
        """Take one write."""
        self.writes.append(write)

    def advance(self, advance: Advance) -> None:
        """Take one advancement."""
        self.advances.append(advance)

    def cross(self, crossing: Crossing) -> None:
        """Take one crossing."""
        self.crossings.append(crossing)

    def ask(self, inquiry: Inquiry) -> None:
        """Take one question."""
        self.inquiries.append(inquiry)

    def commit(self) -> bool:
        """Make the first write durable and call it back; returns whether it is durable.

        After a write that the database would refuse, nothing is written that the run handed over before it learnt of
        that.
        """
        if not self.writes:
            return False  # refused together with an earlier one
        write = self.writes.pop(0)
        try:
            at = self.store.commit(self.worker, write)
        except LeaseLost as error:
            write.on_refused(write, error)
        except RefusedValue as error:
            behind = [later for later in self.writes if later.run == write.run]
            self.writes[:] = [later for later in self.writes if later.run != write.run]
            for refused in (write, *behind):
                refused.on_refused(refused, error)
        else:
            write.on_commit(write, at)
            return True
        return False

    def forget(self) -> bool:
        """Make the first advancement durable and call it back; returns whether it is durable."""
        advance = self.advances.pop(0)
        try:
            at = self.store.advance(self.worker, advance)
        except (PgflowError, RefusedValue) as error:
            advance.on_refused(advance, error)
            return False
        advance.on_commit(advance, at)
        return True

    def do(self, index: int = 0) -> bool:
        """Make a crossing, the first one by default, and answer it; returns whether it was made."""
        crossing = self.crossings.pop(index)
        try:
            answer = self.store.cross(self.worker, crossing)
        except (LeaseLost, RefusedValue) as error:
            crossing.on_refused(crossing, error)
            return False
        crossing.on_done(crossing, answer)
        return True

    def answer(self) -> None:
        """Answer the first question."""
        inquiry = self.inquiries.pop(0)
        inquiry.on_answer(inquiry, self.store.standings(inquiry.ids))
