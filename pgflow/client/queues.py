"""Queues: the part of the client that says what waits in them."""

from __future__ import annotations

import builtins

from pgflow.client.core import Core
from pgflow.model.queue_info import QueueInfo
from pgflow.store.queries import queueing


class Queues:
    """What `client.queues` is."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def list(self) -> builtins.list[QueueInfo]:
        """The queues that workers serve or that something waits in, by name, 1,000 at most.

        Example:
            for queue in await client.queues.list():
                print(queue.name, queue.workers, queue.due, queue.oldest_due_at)
        """
        read, schema = self._core.read, self._core.schema
        served = await read(queueing.workers(schema))
        return await read(queueing.waiting(schema, served))
