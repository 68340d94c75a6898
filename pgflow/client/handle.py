"""What a dispatch gives back: a workflow to wait for, to look at and to operate."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from pgflow.client.core import HasCore, core_of
from pgflow.client.filters import children_of, location_of
from pgflow.definitions.calls import sending_of
from pgflow.definitions.descriptors import Workflow
from pgflow.definitions.options import check_priority, check_queue, uuid_of
from pgflow.model.explanation import Explanation
from pgflow.model.info import HistoryEvent, Rewound, WorkflowInfo
from pgflow.model.moments import in_utc
from pgflow.store.queries import operating
from pgflow.uuid7 import uuid7

R = TypeVar("R", covariant=True)


class WorkflowHandle(Generic[R]):
    """A workflow that was dispatched.

    Attributes:
        id: its id.
    """

    __slots__ = ("_core", "_workflow", "id")

    def __init__(self, client: HasCore, id: UUID, workflow: Workflow[Any, R] | None) -> None:
        self.id = id
        self._core = core_of(client)
        self._workflow = workflow

    async def output(self, timeout: timedelta | float | None = None) -> R:
        """What the workflow returns, converted by its annotation; waits until it has ended.

        Raises:
            WorkflowFailed: it failed.
            WorkflowCancelled: it was cancelled.
            TimeoutError: it has not ended in time.

        Example:
            receipt = await handle.output(timeout=60)
        """
        result: R = await self._core.output(self.id, timeout, self._workflow)
        return result

    async def info(self) -> WorkflowInfo:
        """The workflow as it stands now.

        Raises:
            WorkflowNotFound: it is no longer retained.
        """
        return await self._core.get(self.id)

    async def history(self, forgotten: bool = False) -> list[HistoryEvent]:
        """The workflow's history in order.

        Args:
            forgotten: whether to include the kept turns of loops that have left active history, and what rewinds have
                undone.

        Raises:
            WorkflowNotFound: it is no longer retained.

        Example:
            for event in await handle.history():
                print(event.location, event.kind, event.status)
        """
        return await self._core.history(self.id, forgotten)

    async def explain(self) -> Explanation:
        """Why the workflow waits, in words, with what it waits for, as the client's method of that name does.

        Raises:
            WorkflowNotFound: it is no longer retained.

        Example:
            print(*(await handle.explain()).reasons, sep="\\n")
        """
        return await self._core.explain(self.id)

    async def signal(self, body: Any, *, id: UUID | str | None = None) -> UUID:
        """Send the workflow a signal; its `listen` takes it once.

        Args:
            body: an instance of a class declared by `@pgflow.signal`.
            id: the signal's id: sent again with the same one, it is sent once.

        Raises:
            WorkflowNotFound: the workflow has ended, or is no longer retained.
            SerializationError: the body cannot be stored, or is too large.

        Example:
            await handle.signal(Approved(by="eva"))
        """
        core, own = self._core, uuid7() if id is None else uuid_of(id)
        sent = await core.signal(sending_of(own, body, self.id, None, None, core.payload_limit), missing_ok=False)
        assert sent is not None, "it must have a receiver"
        return sent

    async def cancel(self, *, reason: str | None = None) -> bool:
        """Ask for the workflow to be cancelled, as the client's method of that name does; False when it has ended.

        Example:
            await handle.cancel(reason="ordered twice")
        """
        return await self._core.operate(operating.cancel(self._core.schema, self.id, self._core.audit_note(reason)))

    async def pause(self, *, reason: str | None = None) -> bool:
        """Pause the workflow until it is resumed, as the client's method of that name does; False when it has ended.

        Example:
            await handle.pause(reason="an incident")
        """
        return await self._core.operate(operating.pause(self._core.schema, self.id, self._core.audit_note(reason)))

    async def resume(self, *, reason: str | None = None) -> bool:
        """Let the paused workflow go on, as the client's method of that name does; False when it is not paused.

        Example:
            await handle.resume()
        """
        return await self._core.operate(operating.resume(self._core.schema, self.id, self._core.audit_note(reason)))

    async def retry(self, *, reason: str | None = None) -> None:
        """Run the failed workflow again from its history, as the client's method of that name does.

        Raises:
            PgflowError: it cannot be retried.

        Example:
            await handle.retry(reason="the bank is back")
        """
        await self._core.operate(operating.retry(self._core.schema, self.id, self._core.audit_note(reason)))

    async def rewind(
        self, before: str, *, children: str = "leave", reason: str | None = None, dry_run: bool = False
    ) -> Rewound:
        """Let the workflow run again under its own id from before a step, as the client's method of that name does.

        Raises:
            PgflowError: it cannot be rewound there, or goes on: pause it first.

        Example:
            await handle.rewind(before="{3}", reason="charged the wrong card")
        """
        core = self._core
        note = core.audit_note(reason)
        query = operating.rewind(core.schema, self.id, location_of(before), children_of(children), dry_run, note)
        return await core.operate(query)

    async def terminate(self, *, reason: str | None = None) -> bool:
        """End the workflow at once, without its code, as the client's method of that name does; False when it has
        ended.

        Example:
            await handle.terminate(reason="its code was removed")
        """
        return await self._core.operate(operating.terminate(self._core.schema, self.id, self._core.audit_note(reason)))

    async def update(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        reason: str | None = None,
    ) -> bool:
        """Change what workers go by when they take the workflow, which must wait, as the client's method of that name
        does; False when it has all that already.

        Raises:
            PgflowError: it runs, has failed or has ended; it has begun, and `run_at` is given.
            ValueError: nothing is given, or something out of range.

        Example:
            await handle.update(priority=7, reason="a customer waits")
        """
        changes, note = changes_of(queue, priority, run_at), self._core.audit_note(reason)
        return await self._core.operate(operating.update(self._core.schema, self.id, changes, note))

    async def wake(self, *, reason: str | None = None) -> bool:
        """Let the workflow, which sleeps, look again now, as the client's method of that name does; False when it does
        not sleep.

        Example:
            await handle.wake(reason="the bank is back")
        """
        return await self._core.operate(operating.wake(self._core.schema, self.id, self._core.audit_note(reason)))

    def __repr__(self) -> str:
        return f"WorkflowHandle({str(self.id)!r})"


def changes_of(queue: str | None, priority: int | None, run_at: datetime | None) -> operating.ClaimChanges:
    """What is to change of a workflow, checked.

    Raises:
        ValueError: nothing is given; a priority or queue out of range, a moment without a time zone.
    """
    if queue is None and priority is None and run_at is None:
        raise ValueError("nothing is given to be changed, expected queue, priority or run_at")
    if queue is not None:
        check_queue(queue)
    if priority is not None:
        check_priority(priority)
    return operating.ClaimChanges(queue, priority, None if run_at is None else in_utc(run_at, "run_at"))
