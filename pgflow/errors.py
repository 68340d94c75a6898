"""Every error that pgflow raises.

    PgflowError
      +- ActivityFailed          an activity failed after its last attempt
      +- WorkflowFailed          a workflow whose output was asked for has failed
      |    +- WorkflowTimeout        ... has failed by its own deadline
      +- WorkflowCancelled       ... has been cancelled
      |    +- WorkflowTerminated     ... has been ended by an operator
      +- WorkflowNotFound        no workflow of that id, or none that matches
      +- SerializationError      a value that cannot be stored, or a stored one that does not fit its type
      +- SchemaOutdated          the database's schema and this code do not go together
      +- MigrationFailed         the schema could not be changed; nothing was
      +- WorkerMisused           a worker is run twice, or after it was stopped
      +- LifespanFailed          a worker's lifespan could not be entered, kept or left
      +- ReadOnlyServer          something was to be written on a standby; nothing was
      +- NonRetryable            raised by an activity: do not try again
      |    +- TransactionMisused   a transactional activity has ended or altered its transaction itself
      +- ActivityCancelled       raised in an activity by its heartbeat: nobody waits for it any more
      +- EngineError             ends the run whatever the code does with it
           +- HistoryDiverged      the code asks for another step than history holds
           +- LatentHistory        the code has ended and history goes on
           +- NondeterminismError  the code does what a replay could not repeat
           +- WorkerCrashed        the processes that ran the workflow died of it, again and again
           +- LeaseLost            another worker has taken the workflow over

A message says what was expected, what was found, at which location, and what to do.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID


class PgflowError(Exception):
    """The base of all errors of pgflow. They can be copied and pickled, with their attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Python would call the class with the message alone, and some need more.
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[PgflowError], args: tuple[Any, ...]) -> PgflowError:
    """An error as it was before its attributes, which follow."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class ActivityFailed(PgflowError):
    """An activity failed after its last attempt; the workflow may catch this and compensate.

    Attributes:
        activity: its name.
        attempts: how many attempts were made.
        error_type: the class name of the last attempt's error.
        error_message: its message.
        location: where the step stands, as displayed.
    """

    def __init__(
        self,
        message: str,
        *,
        activity: str,
        attempts: int,
        error_type: str,
        error_message: str,
        location: str,
    ) -> None:
        super().__init__(message)
        self.activity = activity
        self.attempts = attempts
        self.error_type = error_type
        self.error_message = error_message
        self.location = location


class WorkflowFailed(PgflowError):
    """A workflow whose output was asked for has failed."""

    def __init__(self, message: str, *, workflow_id: UUID, error_type: str, error_message: str) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id
        self.error_type = error_type
        self.error_message = error_message


class WorkflowTimeout(WorkflowFailed):
    """A workflow whose output was asked for had not ended by its deadline, and was cancelled for that."""


class WorkflowCancelled(PgflowError):
    """A workflow whose output was asked for has been cancelled."""

    def __init__(self, message: str, *, workflow_id: UUID) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id


class WorkflowTerminated(WorkflowCancelled):
    """A workflow whose output was asked for has been ended by an operator, without its code."""


class WorkflowNotFound(PgflowError):
    """No workflow has that id, or none matches that name and those tags."""


class SerializationError(PgflowError):
    """A value that cannot be stored, or a stored one that does not fit its type."""


class SchemaOutdated(PgflowError):
    """The database's schema and this code do not go together: migrate the one or deploy the other."""


class MigrationFailed(PgflowError):
    """The schema could not be changed; nothing was."""


class WorkerMisused(PgflowError, RuntimeError):
    """A worker is run twice, or after it was stopped."""


class LifespanFailed(PgflowError):
    """A worker's `lifespan` could not be entered, has ended by itself, or could not be left; the cause is its error."""


class ReadOnlyServer(PgflowError):
    """Something was to be written on a server that can only be read; nothing was."""


class NonRetryable(PgflowError):
    """Raised by an activity to say that another attempt would not help."""


class TransactionMisused(NonRetryable):
    """A transactional activity has ended, broken or altered its transaction itself: nothing is recorded as done."""


class ActivityCancelled(PgflowError):
    """Raised in an activity by `ctx.heartbeat()`: nobody waits for this attempt any more, clean up and return."""


class EngineError(PgflowError):
    """The run ends with this error, whatever the code does with it.

    Attributes:
        location: where in history, as displayed; None where it is about no place in it.
        expected: what was expected there.
        found: what was found instead.
    """

    def __init__(
        self,
        message: str,
        *,
        location: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message)
        self.location = location
        self.expected = expected
        self.found = found


class HistoryDiverged(EngineError):
    """The code asks for another step than history holds; nothing was written."""


class LatentHistory(EngineError):
    """The code has ended, but history holds further steps."""


class NondeterminismError(EngineError):
    """The code does what a replay could not repeat."""


class WorkerCrashed(EngineError):
    """The processes that ran the workflow died of it, again and again; of an activity's attempt: the process that ran
    it died.
    """


class LeaseLost(EngineError):
    """Another worker has taken the workflow over; this one writes nothing more for it."""
