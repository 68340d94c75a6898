"""Forgetting: the finished turns of loops leave active history, atomically (design, "Forgetting")."""

from __future__ import annotations

from pgflow.execution.ports import Advance
from pgflow.store.connections import Database


class LoopAdvancer:
    """Implements `pgflow.execution.ports.Loops` for one worker on one event loop.

    Example:
        advancer = LoopAdvancer(database, worker_id)
        advancer.start()
        advancer.advance(advance)     # advance.on_commit is called after the commit
        await advancer.close()
    """

    def __init__(self, database: Database, worker_id: int) -> None:
        self._database = database
        self._worker = worker_id
        self.retries = 0
        """Transactions that were repeated after a serialization failure or a deadlock."""

    def start(self) -> None:
        """Begin to advance; call it on the event loop that the callbacks belong to."""
        raise NotImplementedError

    def advance(self, advance: Advance) -> None:
        """Take one advancement; it is in the next transaction."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop. What still waits is refused with `LeaseLost`."""
        raise NotImplementedError
