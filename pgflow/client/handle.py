"""What a dispatch gives back: a workflow to wait for and to look at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID

from pgflow.client.core import HasCore, core_of
from pgflow.definitions.descriptors import Workflow
from pgflow.model.info import WorkflowInfo

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

    def __repr__(self) -> str:
        return f"WorkflowHandle({str(self.id)!r})"
