"""What an operator does with one workflow: cancel, pause, resume, retry, rewind, terminate, update, wake, fork.

It also lists who did what.
"""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflow.client.core import HasCore
from pgflow.client.filters import AuditFilter, children_of, location_of
from pgflow.client.handle import WorkflowHandle, changes_of
from pgflow.definitions.options import check_queue, uuid_of
from pgflow.model.info import AuditEntry, Rewound
from pgflow.store.queries import operating
from pgflow.uuid7 import uuid7


class Operations(HasCore):
    """The methods of a client that operate one workflow."""

    async def cancel(self, id: UUID | str, *, reason: str | None = None, connection: Any = None) -> bool:
        """Ask for a workflow to be cancelled: its code gets an `asyncio.CancelledError`, and may compensate.

        Args:
            reason: why, for the table `audit`: at most 2,000 characters.
            connection: a connection or session of psycopg's or SQLAlchemy's whose transaction this joins.

        Returns:
            False when it has ended already.

        Raises:
            WorkflowNotFound: there is no such workflow.

        Example:
            await client.cancel(handle.id, reason="ordered twice")
        """
        return await self._core.operate(
            operating.cancel(self._core.schema, uuid_of(id), self._core.audit_note(reason)), connection
        )

    async def pause(self, id: UUID | str, *, reason: str | None = None) -> bool:
        """Pause a workflow until `resume`. One that runs is paused when its activities in flight have ended.

        Args:
            reason: why, for the table `audit`: at most 2,000 characters.

        Returns:
            False when it has ended already.

        Raises:
            WorkflowNotFound: there is no such workflow.
        """
        return await self._core.operate(operating.pause(self._core.schema, uuid_of(id), self._core.audit_note(reason)))

    async def resume(self, id: UUID | str, *, reason: str | None = None) -> bool:
        """Let a paused workflow go on.

        Args:
            reason: why, for the table `audit`: at most 2,000 characters.

        Returns:
            False when it is not paused.

        Raises:
            WorkflowNotFound: there is no such workflow.
        """
        return await self._core.operate(operating.resume(self._core.schema, uuid_of(id), self._core.audit_note(reason)))

    async def retry(self, id: UUID | str, *, reason: str | None = None) -> None:
        """Run a failed workflow again from its history: the steps whose failures ended it get a new set of attempts.

        Args:
            reason: why, for the table `audit`: at most 2,000 characters.

        Raises:
            WorkflowNotFound: there is no such workflow.
            PgflowError: it has not failed; its code had gone on from the failure (rewind or fork it); it is unique, and
                another live workflow has its name and tags.

        Example:
            await client.retry(handle.id)
        """
        await self._core.operate(operating.retry(self._core.schema, uuid_of(id), self._core.audit_note(reason)))

    async def rewind(
        self,
        id: UUID | str,
        before: str,
        *,
        children: str = "leave",
        reason: str | None = None,
        dry_run: bool = False,
    ) -> Rewound:
        """Let a workflow that is paused or failed, or has ended, run again under its own id from before a step.

        What came after goes to forgotten history, and is done again: activities get another `idempotency_key`, children
        and signals to others other ids. Signals that were taken there, or dropped at the end, are in the mailbox again.

        Args:
            before: the location of a step, as displayed or as stored; it and what comes after it run again.
            children: what becomes of children that were started there and still run: "leave" them, or "cancel" them.
            reason: why, for the table `audit`: at most 2,000 characters.
            dry_run: do nothing, but say what would be undone.

        Raises:
            WorkflowNotFound: there is no such workflow, or no such step in its history.
            PgflowError: it goes on (pause it first); the turn of a loop has been trimmed; it is unique, and another
                live workflow has its name and tags.
            ValueError: `before` is no location; `children` is neither of the two.

        Example:
            await client.rewind(order, before="{3}", children="cancel", reason="charged the wrong card")
        """
        note = self._core.audit_note(reason)
        query = operating.rewind(
            self._core.schema, uuid_of(id), location_of(before), children_of(children), dry_run, note
        )
        return await self._core.operate(query)

    async def terminate(self, id: UUID | str, *, reason: str | None = None) -> bool:
        """End a workflow at once, without a worker and without its code: for code that is gone, or swallows cancels.

        It is cancelled, with the error `WorkflowTerminated`. Nothing is compensated: `cancel` lets the code do that.
        Activities in flight are cancelled where notifications get through, and else when they next tell something; no
        result of them is taken. Its children are asked to cancel.

        Args:
            reason: why, for the table `audit` and the error: at most 2,000 characters.

        Returns:
            False when it has ended already.

        Raises:
            WorkflowNotFound: there is no such workflow.

        Example:
            await client.terminate(handle.id, reason="its code was removed")
        """
        return await self._core.operate(
            operating.terminate(self._core.schema, uuid_of(id), self._core.audit_note(reason))
        )

    async def update(
        self,
        id: UUID | str,
        *,
        queue: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        reason: str | None = None,
    ) -> bool:
        """Change by what workers choose a workflow that waits; what is not given stays as it is.

        Args:
            queue: the queue that workers serve; for a workflow that is pending, sleeping or paused.
            priority: higher goes first; for a workflow that is pending, sleeping or paused.
            run_at: not before this moment (with a time zone); only for a workflow that no worker has ever had.
            reason: why, for the table `audit`: at most 2,000 characters.

        Returns:
            False when it has all that already.

        Raises:
            WorkflowNotFound: there is no such workflow.
            PgflowError: it runs (pause it first), has failed or has ended; it has begun, and `run_at` is given.
            ValueError: nothing is given; a priority or queue out of range, a moment without a time zone.

        Example:
            await client.update(handle.id, queue="bulk", priority=-1, reason="makes way")
        """
        changes = changes_of(queue, priority, run_at)
        note = self._core.audit_note(reason)
        return await self._core.operate(operating.update(self._core.schema, uuid_of(id), changes, note))

    async def wake(self, id: UUID | str, *, reason: str | None = None) -> bool:
        """Let a workflow that sleeps look again now: activities that wait for their next attempt are tried at once.

        What its code waits for stays as it is: sleeps, deadlines and listens go on, so nothing is cut short.

        Args:
            reason: why, for the table `audit`: at most 2,000 characters.

        Returns:
            False when it does not sleep: it runs, is due, is paused (`resume` it) or has ended.

        Raises:
            WorkflowNotFound: there is no such workflow.

        Example:
            await client.wake(handle.id, reason="the bank is back")
        """
        return await self._core.operate(operating.wake(self._core.schema, uuid_of(id), self._core.audit_note(reason)))

    async def fork(
        self, id: UUID | str, before: str, *, queue: str | None = None, reason: str | None = None
    ) -> WorkflowHandle[Any]:
        """Start a new workflow from a copy of another's history before a location.

        Args:
            before: the location of a step, as displayed or as stored; it and what comes after it run again.
            queue: the queue that workers serve; that of the other workflow if not given and still known.
            reason: why, for the table `audit`: at most 2,000 characters.

        Raises:
            WorkflowNotFound: there is no such workflow, or no such step in its history.
            PgflowError: the turn of a loop has been trimmed; a child was dispatched before it whose output is not
                recorded.
            ValueError: `before` is no location, or the queue no name.

        Example:
            handle = await client.fork(failed.id, before="{2, 5, 1}")
        """
        if queue is not None:
            check_queue(queue)
        note = self._core.audit_note(reason)
        query = operating.fork(self._core.schema, uuid_of(id), location_of(before), uuid7(), queue, note)
        return WorkflowHandle(self, await self._core.operate(query), None)

    async def audit(
        self,
        workflow_id: UUID | str | None = None,
        *,
        actor: str | None = None,
        operation: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
        after: int | None = None,
    ) -> builtins.list[AuditEntry]:
        """What operators did, the latest first, without what was refused or changed nothing.

        Args:
            workflow_id: only what was done to this workflow, and to signals that were sent to it.
            actor: only what this one did: the `actor` of a client, or else a role of the database.
            operation: only this: "cancel", "pause", "resume", "retry", "rewind", "terminate", "update", "wake",
                "fork", "prune", "redeliver", "drop" or "retention".
            since: only what was done at this moment or later (with a time zone).
            limit: how many, at most.
            after: go on with a list: the id of its last entry.

        Raises:
            ValueError: an id that is none, an operation that there is not, a moment without a time zone, a limit below
                0.

        Example:
            for entry in await client.audit(handle.id):
                print(entry.at, entry.actor, entry.operation, entry.reason)
        """
        asked = AuditFilter(workflow_id, actor, operation, since, limit, after)
        return await self._core.execute(asked.query(self._core.schema))
