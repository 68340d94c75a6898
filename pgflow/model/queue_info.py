"""What a client shows of queues."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class QueueWork:
    """What waits in a queue of the workflows of one name.

    Attributes:
        workflow: their name.
        due: how many are due and nobody has taken.
        oldest_due_at: since when the oldest of them is due.
        next_at: when the next of those that are not due yet will be; signals may wake others before.
    """

    workflow: str
    due: int
    oldest_due_at: datetime | None
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue that workers serve, or in which something waits.

    Attributes:
        workers: living workers that serve it.
        due, oldest_due_at, next_at: as in `QueueWork`, of all its workflows.
        more: whether there is more that is due than was counted.
        work: the same by the workflows' names.
    """

    name: str
    workers: int
    due: int
    more: bool
    oldest_due_at: datetime | None
    next_at: datetime | None
    work: list[QueueWork]
