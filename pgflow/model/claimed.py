"""What the store hands to a run: a claim with all that a replay needs, and what arrives later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgflow.history.events import Event
from pgflow.model.rows import RunKey, Signal

CONFIRM = timedelta(seconds=1)
"""How long after it was noticed the death of a process counts as certain: one that lives and has only lost its
connections has come back by then.
"""


@dataclass(slots=True)
class Claimed:
    """A workflow that this worker holds the lease of, with all that a replay needs."""

    workflow_id: UUID
    name: str
    queue: str
    epoch: int
    input: str
    tags: dict[str, Any]
    """The tags given at dispatch, however activities have changed them since."""
    created_at: datetime
    parent_id: UUID | None
    seed: UUID
    mailbox: int
    cancel_requested: bool
    now: datetime
    """The database's time at the claim."""
    events: list[Event] = field(default_factory=list)
    """Active history, ordered by location; empty when the workflow is `warm`."""
    signals: list[Signal] = field(default_factory=list)
    """The mailbox: what has been delivered and not consumed, in order."""
    state: str | None = None
    """What its activities keep in `ActivityContext.state`: a JSON object."""
    tags_now: dict[str, Any] | None = None
    """The tags that it has now, if activities have changed them."""
    warm: bool = False
    """Whether this worker had it last and gave it up by itself: then history and input were not read again."""
    suspicions: int = 0
    """How many deaths of processes it is suspected of: those processes held it, and it has made no progress since."""
    crashes: Sequence[int] = ()
    """The workers among those that died while they held nothing else, and were not counted as attempts
    of activities.
    """
    suspected_at: datetime | None = None
    """When the last of these deaths was noticed."""
    cancellations: Sequence[int] = ()
    """Places in the order of completion at which requests to cancel were delivered."""
    rewinds: Sequence[str] = ()
    """What each rewind of it has undone (`pgflow.history.rewinds`)."""
    timed_out: float | None = None
    """Its deadline has passed, and it was cancelled for that: the seconds that it had."""
    run: RunKey = field(init=False)
    """The key that fences the writes under this claim."""

    def __post_init__(self) -> None:
        self.run = RunKey(str(self.workflow_id), self.epoch)


@dataclass(slots=True)
class Arrived:
    """News for a run that is in memory: what has been delivered to it, and what is asked of it."""

    workflow_id: UUID
    epoch: int
    after: int
    """The last place in the mailbox before this news."""
    mailbox: int
    """The last place in the mailbox that is taken now."""
    cancel: bool = False
    pause: bool = False
    timed_out: float | None = None
    """The seconds that it had, if it is cancelled by its deadline."""
    signals: list[Signal] = field(default_factory=list)
    """The new signals in the mailbox, in order; the end of a child takes a place in the mailbox too, but is not among
    these.
    """
    looked_at: float = math.inf
    """When the database was asked, on this process's monotonic clock: it may lack what was committed here since."""
