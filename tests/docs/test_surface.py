"""Everything that a user can call stands in a block of the README or of `docs/` that the tests run."""

from __future__ import annotations

import re

import pytest

import pgflow
from tests.docs.page import ROOT, blocks_of
from tests.docs.test_pages import PAGES

EXECUTED = "\n".join(
    block.text for page in PAGES for block in blocks_of(ROOT / page) if block.language in ("python", "sql")
)


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def public(of: type) -> list[str]:
    """The attributes of a class that are for users."""
    return sorted(name for name in {*vars(of), *getattr(of, "__annotations__", {})} if not name.startswith("_"))


ACTIVITY = [
    "id",
    "workflow_id",
    "name",
    "attempt",
    "idempotency_key",
    "state",
    "update_tags",
    "heartbeat",
    "connection",
    "resource",
]
"""What `ActivityContext` offers to activities; the rest is the engine's."""

GIVEN = {
    "Activity",
    "ActivityContext",
    "AuditEntry",
    "ChildHandle",
    "ChildInfo",
    "Count",
    "DeadSignal",
    "Definition",
    "Diagnosis",
    "Explanation",
    "Finding",
    "HistoryEvent",
    "Page",
    "Pruned",
    "QueueInfo",
    "QueueWork",
    "Registry",
    "RetentionRule",
    "Subscription",
    "SyncSubscription",
    "SyncWorkflowHandle",
    "UnreadSignal",
    "WorkerInfo",
    "Workflow",
    "WorkflowContext",
    "WorkflowHandle",
    "WorkflowInfo",
}
"""Classes of what the functions and methods give, which are exported for annotations."""

SURFACE = [
    *(name for name in pgflow.__all__ if name not in GIVEN and not _is_error(getattr(pgflow, name))),
    *(f"ctx.{name}" for name in {*public(pgflow.WorkflowContext), *ACTIVITY}),
    *(f"client.{name}" for name in public(pgflow.Client)),
    *(f"handle.{name}" for name in public(pgflow.WorkflowHandle)),
]


@pytest.mark.parametrize("name", sorted(set(SURFACE)))
def test_it_is_shown(name: str) -> None:
    word = name.rpartition(".")[2]
    dotted = r"\." if "." in name else ""
    assert re.search(rf"{dotted}\b{word}\b", EXECUTED), f"no example in docs/ shows {name}"
