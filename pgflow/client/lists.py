"""Which workflows there are, and how many: the part of the client that lists and counts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflow.client.core import HasCore
from pgflow.client.filters import Filter
from pgflow.model.info import Count, Page


class Lists(HasCore):
    """The methods of a client that list and count workflows."""

    async def list(
        self,
        name: str | None = None,
        status: str | Iterable[str] | None = None,
        tags: Mapping[str, Any] | None = None,
        limit: int = 100,
        *,
        queue: str | None = None,
        parent_id: UUID | str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        ended_after: datetime | None = None,
        ended_before: datetime | None = None,
        error_type: str | None = None,
        waiting_for: type | str | None = None,
        after: UUID | str | None = None,
        before: UUID | str | None = None,
    ) -> Page:
        """Workflows, the youngest first: by `created_at`, whatever their ids are.

        However many there are, a page takes a bounded time. One that is asked for by several filters may be short: it
        has what was found so far, and its cursor goes on.

        Args:
            name, queue, parent_id: only those. What ended before schema 0017 has no queue.
            status: only those in this status, or in one of several.
            tags: only those whose tags contain these.
            limit: how many, at most.
            created_after, created_before: only those dispatched at this moment or later; only those dispatched before
                it.
            ended_after, ended_before: the same of the moment at which they were completed, cancelled or failed.
            error_type: only those that failed with an error of this type, such as "ConnectionError".
            waiting_for: only those that wait for a signal of this class, or name.
            after: go on with a list: the `cursor` of the page before, or the id of its last workflow.
            before: only those dispatched before this workflow: the same as its id for `after`.

        Returns:
            A list with a `cursor`, None when nothing comes after it, and `short`: whether it may have fewer than there
            are.

        Raises:
            WorkflowNotFound: the workflow to go on after is no longer there (a cursor goes on all the same).
            ValueError: a status that there is not, tags that are not flat, a limit below 1, an id or a cursor that is
                none, a moment without a time zone, a range that ends before it begins.

        Example:
            page = await client.list(status=["failed", "cancelled"], tags={"customer": 7})
            while page.cursor is not None:
                page = await client.list(status=["failed", "cancelled"], tags={"customer": 7}, after=page.cursor)
        """
        asked = Filter(
            name=name,
            status=status,
            tags=tags,
            limit=limit,
            queue=queue,
            parent_id=parent_id,
            created_after=created_after,
            created_before=created_before,
            ended_after=ended_after,
            ended_before=ended_before,
            error_type=error_type,
            waiting_for=waiting_for,
            after=before if after is None else after,
        )
        found = await self._core.read(asked.query(self._core.schema))
        if not found and not found.short and asked.last is not None:
            await self._core.get(asked.last)
        return found

    async def count(
        self,
        name: str | None = None,
        status: str | Iterable[str] | None = None,
        tags: Mapping[str, Any] | None = None,
        limit: int = 10_000,
        *,
        queue: str | None = None,
        parent_id: UUID | str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        ended_after: datetime | None = None,
        ended_before: datetime | None = None,
        error_type: str | None = None,
        waiting_for: type | str | None = None,
        after: UUID | str | None = None,
    ) -> Count:
        """How many workflows there are, up to a limit.

        Args:
            limit: where counting ends.
            name, status, tags, queue, parent_id, created_after, created_before, ended_after, ended_before, error_type,
            waiting_for, after: as for `list`.

        Returns:
            A whole number that also says whether there may be `more`, and has a `cursor` by which to count on.

        Raises:
            ValueError: as for `list`.

        Example:
            failed = await client.count("checkout", "failed")
            print(f"{failed}{' or more' if failed.more else ''}")
        """
        asked = Filter(
            name=name,
            status=status,
            tags=tags,
            limit=limit,
            queue=queue,
            parent_id=parent_id,
            created_after=created_after,
            created_before=created_before,
            ended_after=ended_after,
            ended_before=ended_before,
            error_type=error_type,
            waiting_for=waiting_for,
            after=after,
        )
        return await self._core.read(asked.count(self._core.schema))
