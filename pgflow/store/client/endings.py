"""Who waits for the end of which workflow, and when to look at it: what both clients have in common. No I/O.

    a call waits   -> a look at the workflow, at once or a moment later -- ended --> the answer
                          ^                       | not yet
                          '- a hint, or the time -'

A hint says which workflows have ended. It may be lost, so there is a look now and then without one. On an event loop
one task looks for all who wait (`endings_by_task.py`). Of threads each looks for itself, and they take turns at reading
hints (`endings_by_turns.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar
from uuid import UUID

from pgflow.store.client.recent import RecentHints
from pgflow.uuid7 import MOMENT, is_fresh

W = TypeVar("W")

POLL = 5.0
"""Seconds between two looks at awaited workflows, while notifications arrive."""

POLL_BLIND = 0.5
"""The same while none come."""

FIRST_LOOK = 1.0
"""Seconds that the first look at a workflow may take, even if the caller's timeout is shorter."""


def between_looks(listening: bool) -> float:
    """Seconds between two looks, by whether notifications come."""
    return POLL if listening else POLL_BLIND


class Waiting(Generic[W]):
    """Those who wait, by workflow."""

    def __init__(self) -> None:
        self.heard = RecentHints()
        """The workflows that hints have announced."""
        self._waiters: dict[UUID, set[W]] = {}

    def add(self, id: UUID, waiter: W) -> None:
        """Somebody begins to wait."""
        self._waiters.setdefault(id, set()).add(waiter)

    def discard(self, id: UUID, waiter: W) -> None:
        """Somebody no longer waits."""
        waiters = self._waiters[id]
        waiters.discard(waiter)
        if not waiters:
            del self._waiters[id]

    def of(self, ids: Iterable[UUID]) -> Iterator[W]:
        """Those who wait for these workflows."""
        for id in ids:
            yield from self._waiters.get(id, ())

    def until_first_look(self, id: UUID, listening: bool) -> float:
        """Seconds before the first look at a workflow that was dispatched just now, whose end a hint will announce."""
        return MOMENT if listening and is_fresh(id) and id not in self.heard else 0.0

    def __iter__(self) -> Iterator[UUID]:
        return iter(self._waiters)

    def __contains__(self, id: UUID) -> bool:
        return id in self._waiters

    def __len__(self) -> int:
        return len(self._waiters)
