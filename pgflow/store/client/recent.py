"""The workflows of which a client has heard lately that they have ended."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

REMEMBERED = 10_000
"""Ended workflows that a client remembers to have heard of."""


class Recent:
    """The workflows that hints have told of lately: who begins to wait for one of them need not wait for the hint."""

    def __init__(self) -> None:
        self._ids: dict[UUID, None] = {}

    def add(self, ids: Iterable[UUID]) -> None:
        """These have ended."""
        self._ids.update(dict.fromkeys(ids))
        while len(self._ids) > REMEMBERED:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, id: UUID) -> bool:
        return id in self._ids
