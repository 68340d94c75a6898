"""One attempt of an activity as it is handed over: what to run, and who gets the result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Protocol

from pgflow.definitions.descriptors import Activity
from pgflow.execution.activities.activity_context import ActivityContext
from pgflow.model.writes import Write


class Caller(Protocol):
    """Receives the news of an attempt, on the worker's loop; its text says whose attempt it is."""

    def attempt_ended(self, output: str | None, error: BaseException | None) -> None:
        """It has ended, with the encoded output or the error. Called once, unless the call was cancelled."""
        ...

    def attempt_progressed(self, details: str) -> None:
        """A heartbeat has reported these details, as JSON. Called at most once a second."""
        ...

    def was_under_way(self, at: datetime, recorded: bool) -> bool:
        """Whether an attempt was under way when a process died, as far as history shows.

        Args:
            at: When that was noticed.
            recorded: Whether that process recorded each attempt before it began it.
        """
        ...

    def attempt_died(self, error: BaseException, at: datetime) -> None:
        """The attempt that is about to begin was under way already, in a process that died: it has failed."""
        ...

    def record_first(self) -> None:
        """Make sure that the attempt is recorded before it begins."""
        ...

    def record_beginning(self, begin: Callable[[], None]) -> None:
        """Record that the attempt begins; call `begin` once that is committed, if it is still to begin."""
        ...

    def attempt_ready(self, output: str, go: Callable[[Write], None]) -> None:
        """The code of a transactional one has returned: hand over, in the run's turn, the write that its transaction
        commits.

        Then this write's callbacks are called, and not `attempt_ended`.
        """
        ...


class ActivityCall:
    """One attempt: what to run, and who gets the result."""

    __slots__ = (
        "activity",
        "caller",
        "cancelled",
        "committing",
        "context",
        "input",
        "limit",
        "record_first",
        "task",
        "work",
    )

    def __init__(
        self,
        activity: Activity[Any, Any],
        context: ActivityContext,
        input: str,
        limit: int,
        caller: Caller,
    ) -> None:
        self.activity = activity
        self.context = context
        self.input = input
        self.limit = limit
        self.caller = caller
        self.record_first = False
        """Whether its beginning is recorded once it is its turn, and before it begins."""
        self.cancelled = False
        self.committing = False
        """Whether its transaction is being committed, so that it is too late to cancel it."""
        self.task: asyncio.Task[None] | None = None
        self.work: Future[Any] | None = None
        """The work that runs in a thread for it."""

    @property
    def label(self) -> str:
        """The step, for messages."""
        return str(self.caller)

    def cancel(self) -> None:
        """Nobody wants the result any more: an async activity is cancelled, a thread learns it by its
        next heartbeat.
        """
        self.cancelled = True
        self.context.end("its step was cancelled, or its workflow has left this worker")
        if self.task is not None and not self.committing:
            self.task.cancel()
