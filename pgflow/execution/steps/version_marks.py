"""Marks in history for code that changes: version checks, and steps that were removed.

Nothing waits for a mark's row: it is committed in the same transaction as whatever follows it, or earlier.
"""

from __future__ import annotations

import json

from pgflow.execution.engine.interfaces import ScopeView
from pgflow.history.events import (
    KIND_REMOVED,
    KIND_VERSION_CHECK,
    STATUS_CANCELLED,
    STATUS_COMPLETED,
    STATUS_PENDING,
)
from pgflow.model.rows import EventRow


def check_version(scope: ScopeView, version: int) -> int:
    """`version` at the end of history, which is recorded; else what history says."""
    scope.check_usable()
    _count(scope)
    try:
        answer, location = scope.cursor.check_version(version)
    except Exception as error:
        scope.run.end_with(error)
    if location is not None:
        scope.record_mark(_mark(scope, location, version, KIND_VERSION_CHECK, "", None))
    return answer


def removed(scope: ScopeView, version: int, kind: str, name: str) -> None:
    """Pass the step that used to stand here, or record that it no longer does."""
    scope.check_usable()
    _count(scope)
    try:
        step = scope.cursor.removed(kind, name, version)
    except Exception as error:
        scope.run.end_with(error)
    if step is None:
        return
    event = step.event
    if event is not None and scope.run.order.uncalled is not None:
        scope.run.order.uncalled.passed_over(event.location)
    if event is None:
        what = json.dumps({"kind": kind}, separators=(",", ":"))
        scope.record_mark(_mark(scope, step.location, version, KIND_REMOVED, name, what))
    elif event.status == STATUS_PENDING:
        # Nobody waits for it any more, and history tells what is awaited.
        row = _mark(scope, event.location, event.version, event.kind, event.name, None)
        scope.record_mark(row._replace(status=STATUS_CANCELLED, attempts=event.attempts, error=event.error))


def _count(scope: ScopeView) -> None:
    """Code that stands at a mark goes on, as it does at a step: from a failure that it has caught, say."""
    scope.run.calls += 1
    scope.run.aftermath = None


def _mark(scope: ScopeView, location: str, version: int, kind: str, name: str, input: str | None) -> EventRow:
    return EventRow(
        location,
        scope.iteration,
        None,
        version,
        kind,
        name,
        STATUS_COMPLETED,
        0,
        input,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
    )
