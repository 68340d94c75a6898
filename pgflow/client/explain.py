"""Why a workflow is where it is: the part of the client that says so."""

from __future__ import annotations

from uuid import UUID

from pgflow.client.core import HasCore
from pgflow.model.explanation import Explanation


class Explaining(HasCore):
    """The method of a client that says why a workflow is where it is."""

    async def explain(self, id: UUID | str) -> Explanation:
        """Why a workflow waits, in words, with what it waits for: its pending steps, unread signals and children.

        Raises:
            WorkflowNotFound: There is no such workflow.
            ValueError: The id is none.

        Example:
            for reason in (await client.explain(handle.id)).reasons:
                print(reason)
        """
        return await self._core.explain(id)
