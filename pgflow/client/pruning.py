"""Removing workflows that ended long ago: the part of the client that prunes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgflow.client.core import HasCore
from pgflow.client.filters import PruneFilter
from pgflow.model.info import Pruned
from pgflow.store.queries import removing

_AT_ONCE = 100
"""Workflows that one transaction removes, at most."""


class Pruning(HasCore):
    """The method of a client that removes workflows."""

    async def prune(
        self,
        *,
        older_than: timedelta | float,
        name: str | None = None,
        status: str | Iterable[str] | None = None,
        tags: Mapping[str, Any] | None = None,
        queue: str | None = None,
        parent_id: UUID | str | None = None,
        limit: int | None = None,
        dry_run: bool = False,
        reason: str | None = None,
        progress: Callable[[Pruned], object] | None = None,
    ) -> Pruned:
        """Remove workflows that ended long enough ago, with their history and their signals, for good.

        One stays while somebody may still await it: its parent, and whoever found it as unique, unless they have ended
        (one that has failed may go on) or no longer hold it in active history. Some are removed at a time, in a
        transaction of their own; what was removed stays so whatever comes after. An id that has gone may be used anew.

        Args:
            older_than: how long ago they ended, at least; in seconds if a number.
            name: only those of this name.
            status: "completed", "failed" or "cancelled", or several of them. Not given: those that completed or were
                cancelled, since a failed one may be retried.
            tags: only those whose tags contain these.
            queue: only those that were in this queue, as far as that is known.
            parent_id: only children of this workflow.
            limit: how many, at most; None: all.
            dry_run: remove nothing; count what would go.
            reason: why, for the table `audit`: at most 2,000 characters.
            progress: called after each transaction with what came of it so far.

        Returns:
            How many were removed, or would be: a number. Its `kept` says how many of those that match stay, by why:
            "awaited", or "busy" (somebody has them locked).

        Raises:
            ValueError: `older_than` is negative, a limit below 1, a status that is not final.
            PgflowError: workers have yet to enter who found which unique workflow before the schema could tell.

        Example:
            await client.prune(older_than=timedelta(days=30), name="newsletter")
        """
        asked = PruneFilter(older_than, name, status, tags, queue, parent_id, limit)
        note = self._core.audit_note(reason)
        removed = before = 0
        kept: dict[str, int] = {}
        place: tuple[datetime, UUID] | None = None
        while limit is None or removed < limit:
            rows = _AT_ONCE if limit is None else min(_AT_ONCE, limit - removed)
            query = removing.remove(self._core.schema, asked.asked, place, rows, dry_run, note)
            page = await self._core.execute(query)
            tried = page.tried
            if not any(stays == "removing" for _, stays in tried):
                place = page.place
            if page.place is None:
                # What a failed one might have awaited may go once that has gone.
                if dry_run or "failed" not in asked.statuses or "awaited" not in kept or removed == before:
                    break
                before, kept = removed, {}
                continue
            for _, stays in tried:
                if stays is None:
                    removed += 1
                elif place is page.place:
                    kept[stays] = kept.get(stays, 0) + 1
            if progress is not None:
                progress(Pruned(removed, kept))
        return Pruned(removed, kept)
