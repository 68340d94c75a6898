"""Cancelling a workflow: how a request becomes a `CancelledError` in its code, live and on replay.

    requested -> at rest, when no result waits to be delivered: a `cancelled` row for each innermost unfinished step,
    all with one `seq`, in the transaction that consumes the request and keeps that place with the workflow (the rows
    may belong to turns that are forgotten while the code around the loop is still being cancelled) -> committed ->
    delivered

Delivered, live or at that `seq` of a replay, it cancels the run's task once, then those steps in the order of
locations. The code may compensate with further steps; the workflow is cancelled if the error leaves it, and completed
if it returns. A deadline that has passed is such a request (`deadlines_pass.sql`); if that error leaves it, it fails.
"""

from __future__ import annotations

import asyncio
import math
import time
from datetime import datetime

from pgflow.execution.engine.arrivals import apply_requests
from pgflow.execution.engine.interfaces import FirstCancel, RunView, StepView
from pgflow.history.events import STATUS_CANCELLED


class RecordedCancellation:
    """A recorded cancellation that waits for its place in the order of completion."""

    __slots__ = ("_run", "_seq")
    settled = False
    cancels = True

    def __init__(self, run: RunView, seq: int) -> None:
        self._run = run
        self._seq = seq

    def deliver_recorded(self) -> None:
        """Cancel again what was cancelled in the earlier life."""
        steps = [
            step
            for step in _innermost(self._run)
            if step.event is not None and step.event.status == STATUS_CANCELLED and step.event.seq == self._seq
        ]
        at = max((step.event.at for step in steps if step.event is not None), default=self._run.scope.now)
        _cancel(self._run, steps, at)


def replay_cancellations(run: RunView) -> None:
    """Put the cancellations of earlier lives into the order of what is to be delivered."""
    for seq in run.claimed.cancellations:
        run.order.replay(seq, RecordedCancellation(run, seq))


def deliver_cancellation(run: RunView) -> None:
    """At rest, when nothing waits to be delivered: record that the run is cancelled; its code gets it once that is
    committed.

    Without a step to cancel, the request waits for the next one.
    """
    steps = [step for step in _innermost(run) if not step.finished]
    if not steps:
        return
    delivery = run.deliver_later(lambda at: _cancel(run, steps, at))
    seq, delivery.ahead = delivery.seq, None  # the workflow keeps this place alone
    for step in steps:
        step.finished = True
        step.stop()
        run.unpark(step)
        step.scope.record(step, step.row(STATUS_CANCELLED, seq))
    run.claimed.cancel_requested = False
    apply_requests(run)  # a pause requested since then comes after the cancellation
    run.cancel_taken_at = math.inf  # until that is committed, every look at the database finds the request
    run.outgoing.cancel(seq)
    run.outgoing.call_after(lambda: _note_taken(run))


def _note_taken(run: RunView) -> None:
    run.cancel_taken_at = time.monotonic()


def _innermost(run: RunView) -> list[StepView]:
    return [step for step in run.scope.all_unfinished() if not step.is_container]


def _cancel(run: RunView, steps: list[StepView], at: datetime) -> None:
    run.scope.pass_time(at)
    run.cancelled = True
    if run.first_cancel is None:
        run.first_cancel = FirstCancel(run.calls, tuple(step.location for step in steps))
    owner: asyncio.Task[object] | None = run.scope.owner
    assert owner is not None
    owner.cancel()
    for step in steps:
        step.scope.pass_time(at)
        step.drop()
