"""pgflow: durable workflows on nothing but PostgreSQL.

A workflow is an ordinary `async def`; every step that it completes is a row of event history; when a process dies,
another replays the history and goes on from the next step. Everything a user needs is imported here; all else is
private.
"""

from pgflow.client.client import Client
from pgflow.client.handle import WorkflowHandle
from pgflow.client.subscription import Subscription
from pgflow.client.sync.client import SyncClient
from pgflow.client.sync.handle import SyncWorkflowHandle
from pgflow.client.sync.subscription import SyncSubscription
from pgflow.decorators import activity, message, signal, workflow
from pgflow.definitions.descriptors import Activity, Registry, Workflow
from pgflow.definitions.retry import RetryPolicy
from pgflow.errors import (
    ActivityCancelled,
    ActivityFailed,
    HistoryDiverged,
    LatentHistory,
    LeaseLost,
    LifespanFailed,
    MigrationFailed,
    NondeterminismError,
    NonRetryable,
    PgflowError,
    ReadOnlyServer,
    SchemaOutdated,
    SerializationError,
    TransactionMisused,
    WorkerCrashed,
    WorkerMisused,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowTerminated,
    WorkflowTimeout,
)
from pgflow.execution.activities.activity_context import ActivityContext
from pgflow.execution.context import WorkflowContext
from pgflow.execution.steps.child import ChildHandle
from pgflow.execution.steps.loop import Break, Continue
from pgflow.model.diagnosis import Diagnosis, Finding
from pgflow.model.explanation import ChildInfo, Explanation, UnreadSignal
from pgflow.model.info import (
    AuditEntry,
    BulkResult,
    Count,
    DeadSignal,
    Definition,
    HistoryEvent,
    Page,
    Pruned,
    RetentionRule,
    Rewound,
    WorkerInfo,
    WorkflowInfo,
)
from pgflow.model.queue_info import QueueInfo, QueueWork
from pgflow.store.schema.migrations import migrate
from pgflow.worker.worker import Worker

__all__ = [
    "Activity",
    "ActivityCancelled",
    "ActivityContext",
    "ActivityFailed",
    "AuditEntry",
    "Break",
    "BulkResult",
    "ChildHandle",
    "ChildInfo",
    "Client",
    "Continue",
    "Count",
    "DeadSignal",
    "Definition",
    "Diagnosis",
    "Explanation",
    "Finding",
    "HistoryDiverged",
    "HistoryEvent",
    "LatentHistory",
    "LeaseLost",
    "LifespanFailed",
    "MigrationFailed",
    "NonRetryable",
    "NondeterminismError",
    "Page",
    "PgflowError",
    "Pruned",
    "QueueInfo",
    "QueueWork",
    "ReadOnlyServer",
    "Registry",
    "RetentionRule",
    "RetryPolicy",
    "Rewound",
    "SchemaOutdated",
    "SerializationError",
    "Subscription",
    "SyncClient",
    "SyncSubscription",
    "SyncWorkflowHandle",
    "TransactionMisused",
    "UnreadSignal",
    "Worker",
    "WorkerCrashed",
    "WorkerInfo",
    "WorkerMisused",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowContext",
    "WorkflowFailed",
    "WorkflowHandle",
    "WorkflowInfo",
    "WorkflowNotFound",
    "WorkflowTerminated",
    "WorkflowTimeout",
    "activity",
    "message",
    "migrate",
    "signal",
    "workflow",
]
