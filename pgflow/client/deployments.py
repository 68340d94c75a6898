"""What is deployed: the part of the client that shows the workers, and what they know."""

from __future__ import annotations

import builtins

from pgflow.client.core import HasCore
from pgflow.client.filters import checked_limit
from pgflow.definitions.calls import workflow_name
from pgflow.definitions.options import check_queue
from pgflow.model.info import Definition, WorkerInfo
from pgflow.store.queries import deployed


class Deployments(HasCore):
    """The methods of a client that show what is deployed."""

    async def workers(self, *, queue: str | None = None, limit: int = 1000) -> builtins.list[WorkerInfo]:
        """The workers, those of the newest build first: what they are, what they serve, and how much they hold.

        Those that have died are among them until others have noticed it, a second later or when their lease has run
        out.

        Args:
            queue: only those that serve this queue.
            limit: how many, at most.

        Raises:
            ValueError: the queue can be none, or the limit is no whole number.

        Example:
            builds = {worker.build for worker in await client.workers()}
        """
        if queue is not None:
            check_queue(queue)
        return await self._core.connections.execute(deployed.workers(self._core.schema, queue, checked_limit(limit)))

    async def definitions(self, name: str | None = None, *, limit: int = 10_000) -> builtins.list[Definition]:
        """What the live workers know of workflows, those of the newest build first: for each name, queue and build the
        JSON Schema of the arguments, as far as the type hints say.

        Args:
            name: only the workflows of this name.
            limit: how many, at most.

        Raises:
            ValueError: the name can be none, or the limit is no whole number.

        Example:
            known = {definition.name for definition in await client.definitions()}
        """
        if name is not None:
            workflow_name(name)
        return await self._core.connections.execute(deployed.definitions(self._core.schema, name, checked_limit(limit)))
