"""What is asked of workflows (start one, signal one, ask how one ended), and the answers."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID


class Dispatch(NamedTuple):
    """One workflow to start. `input` and `tags` are JSON text; the caller makes the `id`."""

    id: UUID
    name: str
    input: str = "{}"
    tags: str = "{}"
    unique: bool = False
    """Whether to start it only if no other live workflow dispatched with this option has the same name and exactly the
    same tags.
    """
    run_at: datetime | None = None
    """When it may start; None, or a moment that has passed: now."""
    priority: int | None = 0
    queue: str | None = "default"
    """Of a child, priority and queue may be None: those of the workflow that dispatches it."""
    detached: bool = False
    """Of a child: cancelling the workflow that dispatches it does not reach it."""
    timeout: float | None = None
    """Seconds after which it is cancelled if it has not ended; None: it has no deadline."""


class Dispatched(NamedTuple):
    """The result of a dispatch."""

    id: UUID | None
    """The workflow's id: the given one, or that of the live workflow that holds the same unique key."""
    name: str | None
    """The name of the workflow that has this id. Another name than the one asked for is the caller's mistake."""
    created: bool
    """Whether this statement started it."""
    older: bool = False
    """Of a child: whether it was there before its parent. It is that of an earlier workflow of the parent's id then."""

    @property
    def unseen(self) -> bool:
        """Whether somebody else started the same workflow at the same moment and cannot be seen yet: send the query
        again.
        """
        return self.id is None


class Standing(NamedTuple):
    """How a workflow stands. `status` is final when it is completed, failed or cancelled; payloads are JSON text."""

    id: UUID
    name: str
    status: str
    output: str | None
    error: str | None

    @property
    def ended(self) -> bool:
        """Whether it has an output, or will not get one unless it is retried."""
        return self.status in ("completed", "failed", "cancelled")


class Sending(NamedTuple):
    """One signal to send: to a workflow, or to the oldest live one of a name whose tags contain `tags` (JSON text)."""

    id: UUID
    workflow_id: UUID | None
    workflow_name: str | None
    tags: str | None
    name: str
    body: str


class Sent(NamedTuple):
    """The result of sending a signal."""

    receiver: UUID | None
    """The workflow that receives it; None: there is none."""
    final: str | None
    """How the receiver has ended, if it has; a failed one keeps the signal for when it goes on."""
    worker: int
    """The worker that has the receiver, or had it last; 0: any."""
    other: str | None = None
    """If the id already belongs to another signal: the type of that one."""

    @property
    def accepted(self) -> bool:
        """Whether a workflow receives it."""
        return self.receiver is not None and self.final in (None, "failed")
