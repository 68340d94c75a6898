"""Whether what a workflow's code does now was done before in another process, which has written its log lines.

Rows are written when the code has come to rest, so code before a row was run up to that rest. It repeats as long as
history holds results or steps that it has not met again; and, if the last thing in history is a step that waits, until
something new happens. After the very last recorded result it is unknown whether the process that recorded it got any
further: those lines are written again rather than not at all.
"""

from __future__ import annotations

from pgflow.execution.engine.interfaces import ScopeView
from pgflow.history.events import STATUS_PENDING


def repeats(scope: ScopeView) -> bool:
    """Whether the code of a body repeats what it has done before."""
    run = scope.run
    if run.closed:  # it leaves memory: what its `finally` blocks do now does not count
        return True
    if run.order.replaying or not scope.cursor.exhausted:
        return True
    return not run.order.has_grown and _came_to_rest(scope)


def _came_to_rest(scope: ScopeView) -> bool:
    """Whether the last row of history was written by code that waited."""
    last = max(scope.run.claimed.events, key=lambda event: event.at, default=None)
    return last is not None and last.status == STATUS_PENDING
