"""Rows as they travel between execution and the store, and what their writes are fenced by."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class EventRow(NamedTuple):
    """One row of history to write. Payloads are JSON text.

    A row is keyed by its workflow and location: an ended row replaces a pending one, never another ended one.
    `wake_at` is a deadline, as database time.
    """

    location: str
    iteration: int
    seq: int | None
    version: int
    kind: str
    name: str
    status: str
    attempts: int
    input: str | None
    output: str | None
    error: str | None
    wake_at: datetime | None
    turn_state: str | None
    turn_now: datetime | None
    loop_progress: int | None
    loop_state: str | None
    turn_seq: int | None = None


class Signal(NamedTuple):
    """One signal in a workflow's mailbox, delivered and not consumed. `body` is JSON text."""

    id: UUID
    number: int
    name: str
    body: str


class Message(NamedTuple):
    """One message to send. `tags` and `body` are JSON text; of two messages of a workflow the later one has the higher
    `place`.
    """

    workflow_id: UUID
    name: str
    tags: str
    body: str
    place: int = 0


class RunKey(NamedTuple):
    """A run at one epoch: what each of its writes is fenced by.

    The id is text, as it travels to the database, so that it is made once per claim and not once per write.
    """

    workflow: str
    epoch: int

    @property
    def workflow_id(self) -> UUID:
        """The workflow's id."""
        return UUID(self.workflow)
