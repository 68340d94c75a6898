"""The workflows that have ended lately, as far as a client has been notified."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

REMEMBERED = 10_000
"""The most ended workflows that a client remembers."""


class RecentHints:
    """The workflows that hints have announced lately: a call that waits for one of them need not wait for the hint."""

    def __init__(self) -> None:
        self._ids: dict[UUID, None] = {}

    def add(self, ids: Iterable[UUID]) -> None:
        """These have ended."""
        self._ids.update(dict.fromkeys(ids))
        while len(self._ids) > REMEMBERED:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, id: UUID) -> bool:
        return id in self._ids
