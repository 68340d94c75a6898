"""What an operator does with many workflows at once: the part of the client that cancels, pauses, resumes, retries or
terminates all that a filter names.

They are looked up first and then operated in batches, each in a transaction of its own: what was done stays done
whatever happens after it, and calling it again goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack
from uuid import UUID

from pgflow.client.core import HasCore
from pgflow.client.filters import BULK, BulkFilter, BulkFilters
from pgflow.model.info import BulkResult
from pgflow.store.queries import operating

_AT_ONCE = 200
"""The most workflows that one transaction operates: all of them are locked until its commit."""

_PAGE = 1_000
"""The most workflows that one statement looks up."""


class BulkOperations(HasCore):
    """The methods of a client that operate many workflows."""

    async def cancel_many(
        self,
        *,
        ids: Iterable[UUID | str] | None = None,
        limit: int = BULK,
        dry_run: bool = False,
        reason: str | None = None,
        **filters: Unpack[BulkFilters],
    ) -> BulkResult:
        """Ask for workflows to be cancelled, as `cancel` does.

        Args:
            ids: which; or else filters.
            limit: how many, at most, the youngest first; the result says whether there are more.
            dry_run: do nothing; say what would be done, and what refused.
            reason: why, for the table `audit`: at most 2,000 characters.
            filters: as `list` has them (`name`, `status`, `tags`, `queue`, `parent_id`, `error_type`, ...): at least
                one. Without `status` those that have not ended.

        Returns:
            The ids of those for which it was done, and those that refused, each with the reason.

        Raises:
            ValueError: neither ids nor a filter is given, or both; an id that is none, a status that there is not, a
                limit below 1.

        Example:
            result = await client.cancel_many(name="newsletter", tags={"campaign": 7}, reason="wrong price")
            print(len(result.done), result.refused)
        """
        asked = BulkFilter("cancel", ids, limit, filters)
        return await self._operate_many(asked, dry_run, reason)

    async def pause_many(
        self,
        *,
        ids: Iterable[UUID | str] | None = None,
        limit: int = BULK,
        dry_run: bool = False,
        reason: str | None = None,
        **filters: Unpack[BulkFilters],
    ) -> BulkResult:
        """Pause workflows, as `pause` does.

        Args, Returns, Raises: as for `cancel_many`.

        Example:
            await client.pause_many(queue="mail", reason="the mail server is down")
        """
        asked = BulkFilter("pause", ids, limit, filters)
        return await self._operate_many(asked, dry_run, reason)

    async def resume_many(
        self,
        *,
        ids: Iterable[UUID | str] | None = None,
        limit: int = BULK,
        dry_run: bool = False,
        reason: str | None = None,
        **filters: Unpack[BulkFilters],
    ) -> BulkResult:
        """Let paused workflows go on, as `resume` does.

        Args, Returns, Raises: as for `cancel_many`; without `status` those that are paused.

        Example:
            await client.resume_many(queue="mail")
        """
        asked = BulkFilter("resume", ids, limit, filters)
        return await self._operate_many(asked, dry_run, reason)

    async def retry_many(
        self,
        *,
        ids: Iterable[UUID | str] | None = None,
        limit: int = BULK,
        dry_run: bool = False,
        reason: str | None = None,
        **filters: Unpack[BulkFilters],
    ) -> BulkResult:
        """Run failed workflows again from their histories, as `retry` does.

        Args, Returns, Raises: as for `cancel_many`; without `status` those that have failed.

        Example:
            result = await client.retry_many(name="checkout", limit=1000, reason="the bank is back")
        """
        asked = BulkFilter("retry", ids, limit, filters)
        return await self._operate_many(asked, dry_run, reason)

    async def terminate_many(
        self,
        *,
        ids: Iterable[UUID | str] | None = None,
        limit: int = BULK,
        dry_run: bool = False,
        reason: str | None = None,
        **filters: Unpack[BulkFilters],
    ) -> BulkResult:
        """End workflows at once, without their code, as `terminate` does.

        Args, Returns, Raises: as for `cancel_many`.

        Example:
            await client.terminate_many(name="no_longer_there", reason="its code was removed")
        """
        asked = BulkFilter("terminate", ids, limit, filters)
        return await self._operate_many(asked, dry_run, reason)

    async def _operate_many(self, asked: BulkFilter, dry_run: bool, reason: str | None) -> BulkResult:
        note = self._core.audit_note(reason)
        ids, more = await self._ids(asked)
        result = BulkResult([], {}, more)
        for begin in range(0, len(ids), _AT_ONCE):
            query = operating.many(self._core.schema, asked.operation, ids[begin : begin + _AT_ONCE], dry_run, note)
            for id, refused in await self._core.operate(query):
                if refused is None:
                    result.done.append(id)
                else:
                    result.refused[id] = refused
        return result

    async def _ids(self, asked: BulkFilter) -> tuple[list[UUID], bool]:
        """Which workflows they are, and whether there are more than may be operated."""
        found = asked.ids
        for status in asked.statuses:
            after: str | None = None
            while len(found) <= asked.limit:
                page = await self._core.read(asked.page(self._core.schema, status, _PAGE, after))
                found.extend([info.id for info in page])
                after = page.cursor
                if after is None:
                    break
        return found[: asked.limit], len(found) > asked.limit
