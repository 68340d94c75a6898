"""Waiting for the ends of workflows on an event loop: one task looks for all who wait, at many by one statement."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Sequence
from uuid import UUID

from pgflow import forking
from pgflow.model.commands import Standing
from pgflow.store.client.endings import FIRST_LOOK, Waiting, between_looks
from pgflow.store.client.pool import Connections
from pgflow.store.database.connections import Database
from pgflow.store.notify.notifier import Listener
from pgflow.store.queries.dispatching import standings

LOOK_TOGETHER = 1_000
"""Workflows that one statement looks at."""


class _Waiter:
    """Somebody who waits for a workflow's end."""

    __slots__ = ("ended", "last", "seen")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.seen: asyncio.Future[None] = loop.create_future()
        """Done when the workflow has been looked at once."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when it has ended, or is not there."""
        self.last: Standing | None = None

    def see(self, standing: Standing | None) -> None:
        self.last = standing
        if not self.seen.done():
            self.seen.set_result(None)
        if (standing is None or standing.ended) and not self.ended.done():
            self.ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        for future in (self.seen, self.ended):
            if not future.done():
                future.set_exception(error)
            future.exception()  # a waiter that has left does not ask for it


class TaskEndings:
    """Waits for the ends of workflows: one task looks for all who wait, at the workflows that a hint names.

    All that are waited for are looked at now and then, since a hint may be lost.
    """

    def __init__(self, database: Database, connections: Connections) -> None:
        self._database = database
        self._schema = database.schema
        self._connections = connections
        self._begin()
        forking.watch(self)

    def _begin(self) -> None:
        self._listener = Listener(self._database, done=self._hear, reconnected=self._hint_all)
        self._waiting: Waiting[_Waiter] = Waiting()
        self._due: dict[UUID, None] = {}
        self._wanted = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def after_fork(self) -> None:
        """Those who wait, and the tasks, are the parent's."""
        forking.leave(self._listener, self._waiting, self._looking)
        self._begin()

    async def standing(self, workflow_id: UUID, seconds: float | None) -> Standing | None:
        """How a workflow stands once it has ended, or after the given seconds; None: there is no such workflow.

        Raises:
            TimeoutError: the database did not answer.
        """
        self._connections.check_owner()
        waiter = _Waiter()
        self._waiting.add(workflow_id, waiter)
        if pause := self._waiting.until_first_look(workflow_id, self._listener.listening.is_set()):
            asyncio.get_running_loop().call_later(pause, self._hint, [workflow_id])
        else:
            self._hint([workflow_id])
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="pgflow endings")
        start = time.monotonic()
        try:
            first = None if seconds is None else max(seconds, FIRST_LOOK)
            await asyncio.wait([waiter.seen], timeout=first)
            if not waiter.seen.done():
                raise TimeoutError(f"the database did not say in time how workflow {workflow_id} stands")
            waiter.seen.result()
            if not waiter.ended.done():
                self._listener.start()
                left = None if seconds is None else max(0.0, start + seconds - time.monotonic())
                await asyncio.wait([waiter.ended], timeout=left)
            if waiter.ended.done():
                waiter.ended.result()
            return waiter.last
        finally:
            self._leave(workflow_id, waiter)

    def _leave(self, workflow_id: UUID, waiter: _Waiter) -> None:
        self._waiting.discard(workflow_id, waiter)
        if workflow_id not in self._waiting:
            self._wanted.set()

    async def _look(self) -> None:
        """Look at what is due, as long as anybody waits."""
        poll_at = time.monotonic() + between_looks(False)
        while self._waiting:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, poll_at - time.monotonic())):
                    await self._wanted.wait()
            self._wanted.clear()
            start = time.monotonic()
            if start >= poll_at:
                self._due.update(dict.fromkeys(self._waiting))
            due, self._due = [id for id in self._due if id in self._waiting], {}
            for first in range(0, len(due), LOOK_TOGETHER):
                await self._look_at(due[first : first + LOOK_TOGETHER])
            if start >= poll_at:
                now = time.monotonic()
                usual = between_looks(self._listener.listening.is_set())
                poll_at = now + max(usual, 10 * (now - start))

    async def _look_at(self, ids: Sequence[UUID]) -> None:
        try:
            found = await self._connections.execute(standings(self._schema, ids))
        except Exception as error:  # theirs to handle
            for waiter in self._waiting.of(ids):
                waiter.fail(error)
            return
        for id in ids:
            for waiter in self._waiting.of([id]):
                waiter.see(found.get(id))

    def _hear(self, ids: Sequence[UUID]) -> None:
        self._waiting.heard.add(ids)
        self._hint(ids)

    def _hint(self, ids: Iterable[UUID]) -> None:
        for id in ids:
            if id in self._waiting:
                self._due[id] = None
                self._wanted.set()

    def _hint_all(self) -> None:
        self._hint(self._waiting)

    async def close(self) -> None:
        """Stop: calls that still wait raise an error."""
        await self._listener.close()
        for waiter in self._waiting.of(self._waiting):
            waiter.fail(RuntimeError("this client is closed"))
        task, self._looking = self._looking, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
