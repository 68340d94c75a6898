"""One row of active history as replay reads it, and an index over a workflow's rows.

Reading must stay cheap for histories of thousands of rows: nothing is decoded here; rows are grouped by their parent's
stored location and returned as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from pgflow.history.location import decode_coordinate, turn

KIND_ACTIVITY = "activity"
KIND_SLEEP = "sleep"
KIND_TIMEOUT = "timeout"
KIND_LISTEN = "listen"
KIND_SIGNAL_SEND = "signal_send"
KIND_MESSAGE_SEND = "message_send"
KIND_CHILD_WORKFLOW = "child_workflow"
KIND_CHILD_OUTPUT = "child_output"
KIND_LOOP = "loop"
KIND_BRANCH = "branch"
KIND_REMOVED = "removed"
KIND_VERSION_CHECK = "version_check"

KINDS = frozenset(
    {
        KIND_ACTIVITY, KIND_SLEEP, KIND_TIMEOUT, KIND_LISTEN, KIND_SIGNAL_SEND, KIND_MESSAGE_SEND, KIND_CHILD_WORKFLOW,
        KIND_CHILD_OUTPUT, KIND_LOOP, KIND_BRANCH,
    }
)  # fmt: skip
"""Kinds of steps; the others are marks in history."""

STATUS_PENDING = "pending"
STATUS_COMPLETED = "completed"
STATUS_FAILED = "failed"
STATUS_CANCELLED = "cancelled"
STATUS_ABANDONED = "abandoned"

NAMELESS = frozenset({KIND_LISTEN, KIND_SLEEP, KIND_TIMEOUT, KIND_LOOP, KIND_BRANCH})
"""Kinds that match history by kind alone."""


class Event(NamedTuple):
    """One row of active history. Payloads are JSON text; `at` is when it ended, else when it was written."""

    location: str
    iteration: int
    seq: int | None
    version: int
    kind: str
    name: str
    status: str
    attempts: int
    at: datetime
    input: str | None
    output: str | None
    error: str | None
    wake_at: datetime | None
    turn_state: str | None
    turn_now: datetime | None
    loop_progress: int | None
    loop_state: str | None
    turn_seq: int | None = None
    loop_seq: int | None = None


class HistoryIndex:
    """A workflow's active history, grouped by the branch that each row stands on.

    Args:
        events: ordered by location, as the database's "C" collation orders them.
    """

    __slots__ = ("_by_parent", "_last_below", "max_seq")

    def __init__(self, events: Iterable[Event]) -> None:
        by_parent: dict[str, list[Event]] = {}
        highest = 0
        for event in events:
            parent = event[0].rpartition(",")[0]
            siblings = by_parent.get(parent)
            if siblings is None:
                by_parent[parent] = [event]
            else:
                siblings.append(event)
            seq = event[2]
            if seq is not None and seq > highest:
                highest = seq
            if event[13] is not None or event[4] == KIND_LOOP:
                # These places are taken even if the rows of their results have been forgotten.
                highest = max(highest, event.turn_seq or 0, event.loop_seq or 0)
        self._by_parent = by_parent
        self._last_below: dict[str, str] | None = None
        self.max_seq = highest
        """The highest place in the order of completion that is taken, 0 when none is."""

    def children(self, parent: str) -> list[Event]:
        """The rows that stand directly on a branch ("" is the root), in execution order."""
        return self._by_parent.get(parent, [])

    def last_turn(self, loop: str) -> int | None:
        """The last turn of a loop that has a row, counted from 0."""
        if self._last_below is None:
            self._last_below = self._find_last_below()
        coordinate = self._last_below.get(loop)
        return None if coordinate is None else decode_coordinate(coordinate)[0] - 1

    def _find_last_below(self) -> dict[str, str]:
        """The last coordinate that has rows below it, for each location."""
        found: dict[str, str] = {}
        seen: set[str] = set()
        for parent in self._by_parent:
            while parent and parent not in seen:
                seen.add(parent)
                above, _, coordinate = parent.rpartition(",")
                if coordinate > found.get(above, ""):
                    found[above] = coordinate
                parent = above
        return found

    def turn_start(self, loop: str, index: int) -> Event | None:
        """The row of a turn that carries the state it started with."""
        for event in self.children(turn(loop, index)):
            if event.turn_state is not None:
                return event
        return None
