"""The database in memory, for tests that need no real one: in `pgflow.testing` and in the engine's own simulator.

It keeps what execution relies on as PostgreSQL does (one conformance suite runs against both): each write is fenced by
worker and epoch, a row that has ended is not replaced, the rows of a loop's ended turns leave active history and are
trimmed, a signal is consumed with the row of the listen that took it, what arrives while a workflow goes to sleep wakes
it, and what one workflow does to another is done once.

Each method is one transaction. It has no waiting and no locks, since everything happens one after the other; no
connections that may be lost; no deaths of workers (`free` gives back what one held) and no suspicions that follow from
them.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgflow.codec import encode_timeout
from pgflow.errors import LeaseLost, PgflowError
from pgflow.history.events import KIND_LOOP, KIND_REMOVED, STATUS_COMPLETED, STATUS_PENDING, Event
from pgflow.history.location import display, turn, turns
from pgflow.model.claimed import Claimed
from pgflow.model.commands import Dispatch, Dispatched, Sent
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome, Suspended
from pgflow.model.writes import Advance, Crossing, RunChanges, Write
from pgflow.testing.memory_exchange import Exchange
from pgflow.testing.memory_rows import Request, RunRow, WorkflowRow, check_json, check_row, written

_TICK = timedelta(milliseconds=1)
_NOTHING = RunChanges()


class Memory(Exchange):
    """All workflows of one database, their histories and their mailboxes.

    Example:
        memory = Memory(datetime(2030, 1, 1, tzinfo=UTC))
        memory.dispatch(Dispatch(uuid7(), "checkout", '{"order":7}'))
        (claimed,) = memory.claim(1, 10, ["default"], ["checkout"])
        memory.commit(1, Write(claimed.run, [], Completed("null"), print, print))
    """

    def claim(
        self, worker: int, limit: int, queues: Collection[str], names: Collection[str], *, inputs: bool = True
    ) -> list[Claimed]:
        """Take due runs of these queues and names, the highest priority and then the oldest first.

        Args:
            worker: Who takes them.
            limit: The most to take.
            queues: The queues that it serves.
            names: The names of the workflows that it knows.
            inputs: Whether to read the arguments of steps as well, which a strict replay compares.
        """
        due = [
            (-run.priority, run.wake_at, run.workflow_id)
            for run in self.runs.values()
            if run.status in ("pending", "sleeping") and run.wake_at is not None and run.wake_at <= self.now
            if run.queue in queues and run.name in names
        ]
        return [self.take(worker, id, inputs=inputs) for _, _, id in sorted(due)[:limit]]

    def take(self, worker: int, workflow_id: UUID, *, inputs: bool = True) -> Claimed:
        """Take one run, due or not, with all that a replay needs; from here on a former owner is fenced out.

        Args:
            worker: Who takes it.
            workflow_id: Its workflow.
            inputs: Whether to read the arguments of steps as well.
        """
        self.now += _TICK
        run, workflow = self.runs[workflow_id], self.workflows[workflow_id]
        warm = run.last_worker == worker
        run = self.runs[workflow_id] = run._replace(
            status="running", worker=worker, epoch=run.epoch + 1, wake_at=None, waiting_for=(), awaits_children=False
        )
        events = [] if warm else self.history(workflow_id)
        if not inputs:
            events = [event if event.kind == KIND_REMOVED else event._replace(input=None) for event in events]
        return Claimed(
            workflow_id,
            run.name,
            run.queue,
            run.epoch,
            "{}" if warm else workflow.input,
            json.loads(workflow.tags_given or workflow.tags),
            workflow.created_at,
            workflow.parent_id,
            workflow.seed,
            run.mailbox,
            run.cancel_requested,
            self.now,
            events,
            self.mailbox(workflow_id),
            workflow.state,
            None if workflow.tags_given is None else json.loads(workflow.tags),
            warm,
            cancellations=workflow.cancellations,
            timed_out=run.timed_out,
        )

    def free(self, worker: int) -> None:
        """Free what a worker held that is gone: it is claimable again, or paused where that was asked for."""
        for run in list(self.runs.values()):
            if run.worker == worker:
                pauses = run.pause_requested and not run.cancel_requested
                self.runs[run.workflow_id] = run._replace(
                    status="paused" if pauses else "pending",
                    wake_at=None if pauses else self.now,
                    pause_requested=run.pause_requested and run.cancel_requested,
                    waiting_for=(),
                    worker=None,
                    last_worker=None,
                )

    def held(self, worker: int, workflow_id: UUID, epoch: int) -> RunRow:
        """The run, if this worker holds its lease at this epoch.

        Raises:
            LeaseLost: It does not.
        """
        run = self.runs.get(workflow_id)
        if run is None or run.worker != worker or run.epoch != epoch:
            raise LeaseLost(
                f"workflow {workflow_id}: this worker no longer holds the lease of epoch {epoch}, nothing was written; "
                "whoever holds it now goes on from the recorded history"
            )
        return run

    def commit(self, worker: int, write: Write) -> datetime:
        """Make one write durable; returns the time of that.

        Raises:
            LeaseLost: The run is not this worker's any more; nothing has changed.
            RefusedValue: The database would refuse one of its values; nothing has changed.
        """
        workflow_id = write.run.workflow_id
        run = self.held(worker, workflow_id, write.run.epoch)
        run_changes, outcome = write.run_changes or _NOTHING, write.outcome
        for row in write.rows:
            check_row(row)
        check_json(
            run_changes.state, run_changes.tags, getattr(outcome, "output", None), getattr(outcome, "error", None)
        )
        self.now += _TICK
        if write.rows:
            events = self.events.setdefault(workflow_id, {})
            for row in write.rows:
                event = written(events.get(row.location), row, self.now)
                if event is not None:
                    events[row.location] = event
        if write.run_changes is not None:
            self._take_signals(workflow_id, run_changes)
        if (
            outcome is not None
            or run_changes.cancels is not None
            or run_changes.state is not None
            or run_changes.tags is not None
        ):
            self._change(run, outcome, run_changes)
        return self.now

    def _take_signals(self, workflow_id: UUID, run_changes: RunChanges) -> None:
        for id, location in run_changes.consumed:
            signal = self.signals.get(id)
            if signal is not None and signal.workflow_id == workflow_id:
                self.signals[id] = signal._replace(consumed_at=self.now, location=location)
        for id, problem in run_changes.aside:
            signal = self.signals.get(id)
            untouched = signal is not None and signal.consumed_at is None and signal.dropped_at is None
            if signal is not None and untouched and signal.workflow_id == workflow_id:
                self.signals[id] = signal._replace(dropped_at=self.now, problem=problem)

    def cancel(self, workflow_id: UUID) -> bool:
        """Ask for a workflow to be cancelled; False: it has ended."""
        if self.workflows[workflow_id].status is not None:
            return False
        run = self.runs[workflow_id]
        if run.epoch == 0 and run.status in ("pending", "paused"):  # nobody has ever had it
            self.now += _TICK
            self._change(run, Cancelled(), RunChanges())
            return True
        self.requests.append(Request(workflow_id, "cancel"))
        return True

    def pass_deadlines(self) -> list[UUID]:
        """Cancel the workflows whose deadline has passed, and end those of them that nobody has ever had: failed, or
        cancelled if that was asked for before.
        """
        passed = []
        for run in [run for run in self.runs.values() if run.deadline is not None and run.deadline <= self.now]:
            workflow = self.workflows[run.workflow_id]
            cancelled = (
                run.cancel_requested or workflow.cancellations or Request(run.workflow_id, "cancel") in self.requests
            )
            run = run._replace(deadline=None)
            if run.epoch == 0 and run.status in ("pending", "paused"):
                self.now += _TICK
                seconds = workflow.timeout or 0.0
                error = encode_timeout(f"no worker has taken it within {seconds:.15g} s", seconds)
                run = run if cancelled else run._replace(timed_out=seconds)
                self._change(run, Cancelled() if cancelled else Failed(error), RunChanges())
            elif run.status == "failed" or cancelled:
                self.runs[run.workflow_id] = run
                continue
            else:
                status = "pending" if run.status in ("sleeping", "paused") else run.status
                self.runs[run.workflow_id] = run._replace(
                    timed_out=workflow.timeout or 0.0,
                    cancel_requested=True,
                    pause_requested=False,
                    status=status,
                    wake_at=run.wake_at if status == "running" else self.now,
                )
            passed.append(run.workflow_id)
        return passed

    def _change(self, run: RunRow, outcome: Outcome | None, run_changes: RunChanges) -> None:
        """Apply the outcome to the run, and to what is kept with its workflow."""
        workflow = self.workflows[run.workflow_id]
        changes: dict[str, Any] = {}
        if run_changes.state is not None:
            changes["state"] = run_changes.state
        if run_changes.tags is not None:
            changes["tags"] = run_changes.tags
            changes["tags_given"] = workflow.tags_given or workflow.tags
        if run_changes.cancels is not None:
            changes["cancellations"] = (*workflow.cancellations, run_changes.cancels)
        if isinstance(outcome, Completed):
            changes |= {"status": "completed", "output": outcome.output, "error": None, "completed_at": self.now}
        elif isinstance(outcome, Failed):
            changes |= {"status": "failed", "error": outcome.error, "completed_at": self.now}
        elif isinstance(outcome, Cancelled):
            changes |= {"status": "cancelled", "error": None, "completed_at": self.now}
        if changes:
            workflow = self.workflows[workflow.id] = workflow._replace(**changes)
        if isinstance(outcome, Completed | Failed | Cancelled):
            waiters = dict.fromkeys([*([] if workflow.parent_id is None else [workflow.parent_id]), *run.waiters])
            self.requests.extend(Request(id, "child") for id in waiters)
        if run_changes.cancels is not None:
            self.requests.extend(Request(child.id, "cancel") for child in self._children(workflow.id))
        if isinstance(outcome, Completed | Cancelled):
            del self.runs[workflow.id]
            for signal in self.signals.values():
                if signal.workflow_id == workflow.id and signal.waiting:
                    self.signals[signal.id] = signal._replace(dropped_at=self.now)
        elif outcome is not None or run_changes.cancels is not None:
            self.runs[workflow.id] = self._stopped(run, outcome, cancelled=run_changes.cancels is not None)

    def _children(self, workflow_id: UUID) -> list[WorkflowRow]:
        """Children that go on and are not detached."""
        return [
            workflow
            for workflow in self.workflows.values()
            if workflow.parent_id == workflow_id and not workflow.detached and workflow.status is None
        ]

    def _stopped(self, run: RunRow, outcome: Outcome | None, *, cancelled: bool) -> RunRow:
        """A run that stays: it goes on, sleeps, is handed back, paused or failed."""
        cancel = run.cancel_requested and not cancelled
        run = run._replace(cancel_requested=cancel, last_worker=None, waiting_for=(), awaits_children=False)
        if outcome is None:
            return run
        if isinstance(outcome, Failed):
            return run._replace(
                status="failed",
                wake_at=None,
                worker=None,
                pause_requested=False,
                unique_key=None,
                freed_key=run.unique_key,
                reset=outcome.reset,
                fork_before=outcome.fork_before,
            )
        due: datetime | None = self.now
        if isinstance(outcome, Suspended):
            run = run._replace(
                waiting_for=outcome.waiting_for, awaits_children=outcome.awaits_children, last_worker=run.worker
            )
        if run.pause_requested and not cancel:
            status, due = "paused", None
        elif not isinstance(outcome, Suspended) or run.mailbox > outcome.mailbox or cancel:
            status = "pending"
        else:
            status = "sleeping"
            due = None if outcome.wake_at is None else max(outcome.wake_at, self.now)
        return run._replace(status=status, wake_at=due, worker=None, pause_requested=run.pause_requested and cancel)

    def advance(self, worker: int, advance: Advance) -> datetime:
        """Forget the ended turns of a loop; returns the time of that.

        Raises:
            LeaseLost: The run is not this worker's any more; nothing has changed.
            PgflowError: The loop has no row.
            RefusedValue: The database would refuse one of its values; nothing has changed.
        """
        self.held(worker, advance.workflow_id, advance.epoch)
        check_json(advance.state, advance.output)
        self.now += _TICK
        events = self.events.get(advance.workflow_id, {})
        row = events.get(advance.location)
        if row is None or row.kind != KIND_LOOP:
            raise PgflowError(
                f"workflow {advance.workflow_id}: expected the row of the loop at {display(advance.location)} in "
                "active history, found none"
            )
        progress = row.loop_progress or 0
        if row.status == STATUS_COMPLETED or progress >= advance.turns:
            return row.at if advance.breaks and row.status != STATUS_PENDING else self.now
        self._forget(events, advance, progress)
        row = row._replace(loop_progress=advance.turns, loop_state=advance.state, loop_seq=advance.started)
        if advance.breaks:
            row = row._replace(status=STATUS_COMPLETED, seq=advance.seq, output=advance.output, error=None, at=self.now)
        events[advance.location] = row
        return self.now

    def _forget(self, events: dict[str, Event], advance: Advance, progress: int) -> None:
        """Move the rows of ended turns out of active history, and keep those of the last ones."""
        forgotten = self.forgotten.setdefault(advance.workflow_id, {})
        begins, ends = turns(advance.location, progress, advance.turns)
        kept = turn(advance.location, max(advance.turns - advance.keep, 0))
        for location in [location for location in events if begins <= location < ends]:
            forgotten[location] = events.pop(location)
            advance.moved += 1
        first = turn(advance.location, 0)
        for location in [location for location in forgotten if first <= location < kept]:
            del forgotten[location]

    def cross(self, worker: int, crossing: Crossing) -> Sent | Dispatched:
        """Do what a workflow does to another one; doing it twice has the effect of once.

        Raises:
            LeaseLost: The run is not this worker's any more; nothing has changed.
            RefusedValue: The database would refuse one of its values; nothing has changed.
        """
        run = self.held(worker, crossing.workflow_id, crossing.epoch)
        command = crossing.command
        if not isinstance(command, Dispatch):
            return self.send(command, run.workflow_id)
        dispatched = self.dispatch(command, run)
        if command.unique and dispatched.id is not None and dispatched.id != command.id:
            other = self.runs.get(dispatched.id)
            if other is not None and run.workflow_id not in other.waiters:
                self.runs[other.workflow_id] = other._replace(waiters=(*other.waiters, run.workflow_id))
        return dispatched
