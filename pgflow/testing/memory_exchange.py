"""The part of the in-memory store where workflows meet: what they do to each other, what clients ask of them, and how
it is delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from pgflow.definitions.tags import tag_set
from pgflow.model.claimed import Arrived
from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent, Standing
from pgflow.model.rows import Signal
from pgflow.testing.memory_rows import (
    RefusedValue,
    RunRow,
    SignalRow,
    Tables,
    WorkflowRow,
    check_json,
    check_text,
    in_mailbox,
    unique_key,
)


class Delivered(NamedTuple):
    """What one round of deliveries brought."""

    arrived: list[Arrived]
    """News for runs that the delivering worker holds."""
    woken: set[str]
    """Queues with runs that are due."""
    owners: set[int]
    """Other workers, for whose runs there is news."""


class Exchange(Tables):
    """The part of the store in which workflows meet."""

    def dispatch(self, request: Dispatch, parent: RunRow | None = None) -> Dispatched:
        """Start a workflow, unless one was started under this id before, or a live one holds the same unique key.

        Args:
            request: What to start.
            parent: The run that starts it as a child, with its own queue and priority unless the request says
                otherwise.

        Raises:
            RefusedValue: The database would refuse it.
        """
        check_text(request.name)
        check_json(request.input, request.tags)
        if (known := self.workflows.get(request.id)) is not None:
            return Dispatched(known.id, known.name, False)
        key = unique_key(request.name, request.tags) if request.unique else None
        holder = None if key is None else next((run for run in self.runs.values() if run.unique_key == key), None)
        if holder is not None:
            return Dispatched(holder.workflow_id, holder.name, False)
        queue, priority = request.queue, request.priority
        parent_id = root_id = None
        if parent is not None:
            queue, priority = (
                queue or parent.queue,
                parent.priority if priority is None else priority,
            )
            parent_id = parent.workflow_id
            root_id = self.workflows[parent_id].root_id or parent_id
        if queue is None or priority is None:
            raise RefusedValue("a workflow that has no parent needs a queue and a priority")
        self.workflows[request.id] = WorkflowRow(
            request.id,
            request.name,
            request.input,
            request.tags,
            request.id,
            self.now,
            parent_id,
            root_id,
            request.detached,
            timeout=request.timeout,
        )
        due = self.now if request.run_at is None else max(request.run_at, self.now)
        deadline = None if request.timeout is None else self.now + timedelta(seconds=request.timeout)
        self.runs[request.id] = RunRow(
            request.id, request.name, queue, priority, "pending", due, unique_key=key, deadline=deadline
        )
        return Dispatched(request.id, request.name, True)

    def send(self, sending: Sending, sender_id: UUID | None = None) -> Sent:
        """Send a signal; sending it twice sends it once, to the same receiver.

        Raises:
            RefusedValue: The database would refuse it.
        """
        check_text(sending.name)
        check_json(sending.body, sending.tags)
        if (earlier := self.signals.get(sending.id)) is not None:
            same = earlier.name == sending.name and sending.workflow_id in (
                None,
                earlier.workflow_id,
            )
            return Sent(
                earlier.workflow_id,
                None,
                self._worker_of(earlier.workflow_id),
                None if same else earlier.name,
            )
        receiver = sending.workflow_id
        if receiver is None:
            receiver = self._found(sending.workflow_name or "", sending.tags or "{}")
        workflow = None if receiver is None else self.workflows.get(receiver)
        if workflow is None:
            return Sent(None, None, 0)
        if workflow.status in (None, "failed"):
            self.signals[sending.id] = SignalRow(sending.id, workflow.id, sending.name, sending.body, sender_id)
        return Sent(workflow.id, workflow.status, self._worker_of(workflow.id))

    def pause(self, workflow_id: UUID) -> bool:
        """Ask for a workflow to be paused; False: it has ended."""
        run = self.runs.get(workflow_id)
        if run is None or run.status == "failed":
            return False
        heard_first = run.status == "running" or run.cancel_requested  # an earlier request to cancel is delivered first
        self.runs[workflow_id] = run._replace(
            pause_requested=heard_first and run.status != "paused",
            status=run.status if heard_first else "paused",
            last_worker=None,
        )
        return True

    def resume(self, workflow_id: UUID) -> bool:
        """Let a paused workflow go on; False: it is not paused, nor to be paused."""
        run = self.runs.get(workflow_id)
        if run is None or not (run.status == "paused" or run.pause_requested):
            return False
        due = run.wake_at
        if run.status != "running":
            due = self.now if run.epoch or due is None else max(due, self.now)
        self.runs[workflow_id] = run._replace(
            pause_requested=False,
            status="pending" if run.status == "paused" else run.status,
            wake_at=due,
            waiting_for=(),
            awaits_children=False,
        )
        return True

    def standings(self, ids: Iterable[UUID]) -> dict[UUID, Standing | None]:
        """How those of these workflows that have ended did so, and None for those that do not exist."""
        found: dict[UUID, Standing | None] = {}
        for id in ids:
            workflow = self.workflows.get(id)
            if workflow is None:
                found[id] = None
            elif workflow.status is not None:
                found[id] = Standing(id, workflow.name, workflow.status, workflow.output, workflow.error)
        return found

    def deliver(self, worker: int = 0, passing_over: Collection[UUID] = ()) -> Delivered:
        """Deliver what was sent to workflows: it gets its places in the mailboxes, and wakes those that sleep on it.

        Args:
            worker: Who delivers.
            passing_over: Receivers whose rows another session has locked: what was sent to them waits.
        """
        letters: dict[UUID, list[SignalRow]] = {}
        for signal in list(self.signals.values()):
            if signal.number is None and signal.dropped_at is None and signal.workflow_id not in passing_over:
                letters.setdefault(signal.workflow_id, []).append(signal)
        wants: dict[UUID, set[str]] = {}
        for request in self.requests:
            if request.workflow_id not in passing_over:
                wants.setdefault(request.workflow_id, set()).add(request.kind)
        self.requests = [request for request in self.requests if request.workflow_id in passing_over]
        delivered = Delivered([], set(), set())
        for id in sorted(letters.keys() | wants.keys()):
            run = self.runs.get(id)
            if run is None:
                for signal in letters.get(id, ()):
                    self.signals[signal.id] = signal._replace(dropped_at=self.now)
            else:
                self._deliver_to(run, letters.get(id, []), wants.get(id, set()), worker, delivered)
        return delivered

    def _deliver_to(
        self,
        run: RunRow,
        letters: list[SignalRow],
        wants: set[str],
        worker: int,
        delivered: Delivered,
    ) -> None:
        mailbox = run.mailbox
        new: list[Signal] = []
        for letter in letters:
            mailbox += 1
            self.signals[letter.id] = letter._replace(number=mailbox)
            new.append(Signal(letter.id, mailbox, letter.name, letter.body))
        mailbox += "child" in wants
        cancel = "cancel" in wants
        wanted = any(letter.name in run.waiting_for for letter in letters) or (run.awaits_children and "child" in wants)
        status, due = run.status, run.wake_at
        if (cancel and status in ("sleeping", "paused")) or (status == "sleeping" and wanted):
            status, due = "pending", self.now
        elif cancel and status == "pending":
            due = self.now
        after, run = (
            run.mailbox,
            run._replace(
                mailbox=mailbox,
                cancel_requested=run.cancel_requested or (cancel and run.status != "failed"),
                pause_requested=run.pause_requested and not cancel,
                status=status,
                wake_at=due,
                deadline=self.now
                if cancel and run.epoch == 0 and run.status in ("pending", "paused")
                else run.deadline,
            ),
        )
        self.runs[run.workflow_id] = run
        if status == "pending":
            delivered.woken.add(run.queue)
        elif status == "running" and run.worker is not None:
            if run.worker == worker:
                news = Arrived(
                    run.workflow_id,
                    run.epoch,
                    after,
                    mailbox,
                    run.cancel_requested,
                    run.pause_requested,
                    run.timed_out,
                )
                news.signals = new
                delivered.arrived.append(news)
            else:
                delivered.owners.add(run.worker)

    def attend(self, worker: int, seen: Mapping[UUID, int], pausing: Collection[UUID] = ()) -> list[Arrived]:
        """News of the runs that a worker holds.

        Args:
            worker: Who asks.
            seen: The last place in the mailbox that each run in memory has seen.
            pausing: Those of them that are to be paused, as far as is known: whether that still holds is news too.
        """
        found: list[Arrived] = []
        for id, after in seen.items():
            run = self.runs.get(id)
            if run is None or run.worker != worker:
                continue
            if run.mailbox > after or run.cancel_requested or run.pause_requested or id in pausing:
                asked = (run.cancel_requested, run.pause_requested, run.timed_out)
                news = Arrived(id, run.epoch, after, run.mailbox, *asked)
                news.signals = self.mailbox(id, after)
                found.append(news)
        return found

    def mailbox(self, workflow_id: UUID, after: int = 0) -> list[Signal]:
        """The signals in a workflow's mailbox after a place, in order."""
        waiting = in_mailbox(self.signals.values(), workflow_id, after)
        return [Signal(signal.id, signal.number or 0, signal.name, signal.body) for signal in waiting]

    def _worker_of(self, workflow_id: UUID) -> int:
        run = self.runs.get(workflow_id)
        return 0 if run is None else run.worker or run.last_worker or 0

    def _found(self, name: str, tags: str) -> UUID | None:
        """The oldest live workflow of a name whose tags contain these, else the oldest failed one."""
        wanted = tag_set(tags)
        found = [
            (self.runs[workflow.id].status == "failed", workflow.created_at, workflow.id)
            for workflow in self.workflows.values()
            if workflow.id in self.runs and workflow.name == name and wanted <= tag_set(workflow.tags)
        ]
        return min(found)[2] if found else None
