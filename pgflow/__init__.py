"""pgflow: durable workflows on nothing but PostgreSQL.

A workflow is an ordinary `async def`; every step that it completes is a row of event history; when a process dies, another
replays the history and goes on from the next step. Everything a user needs is imported here; all else is private.
"""

from pgflow.definitions import Activity, Registry, Workflow, activity, message, signal, workflow
from pgflow.errors import (
    ActivityFailed,
    HistoryDiverged,
    LatentHistory,
    LeaseLost,
    NondeterminismError,
    NonRetryable,
    PgflowError,
    SchemaOutdated,
    SerializationError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
)
from pgflow.execution.attempts import ActivityContext
from pgflow.execution.context import WorkflowContext
from pgflow.execution.loop import Break, Continue
from pgflow.retry import RetryPolicy

__all__ = [
    "Activity",
    "ActivityContext",
    "ActivityFailed",
    "Break",
    "Continue",
    "HistoryDiverged",
    "LatentHistory",
    "LeaseLost",
    "NonRetryable",
    "NondeterminismError",
    "PgflowError",
    "Registry",
    "RetryPolicy",
    "SchemaOutdated",
    "SerializationError",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowContext",
    "WorkflowFailed",
    "WorkflowNotFound",
    "activity",
    "message",
    "signal",
    "workflow",
]
