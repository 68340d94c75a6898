"""The simulator with other workflows: children, signals, and requests to cancel, where every moment is a choice.

cross     what a step does to another workflow commits, and is answered
look      the database answers how children stand; `answer` brings it to the run, perhaps much later
end       a child ends, and its parent is to be told
send      somebody sends the workflow a signal
deliver   all that is numbered in the mailbox, and wakes who sleeps; `arrive` tells the run in memory
cancel    somebody asks, once, that the workflow be cancelled
"""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflow.definitions.descriptors import Workflow
from pgflow.history.identity import crossing_id
from pgflow.model.claimed import Arrived
from pgflow.model.commands import Dispatch, Sending, Standing
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome
from pgflow.model.rows import Signal
from pgflow.model.writes import Crossing, Inquiry, Write
from pgflow.testing.memory_rows import Request, RunRow, SignalRow, WorkflowRow
from tests.execution.lives import Lives, Program
from tests.execution.simulator import Incarnation, World

NOBODY = UUID(int=404)
"""A receiver that there is not."""


FRIEND = UUID(int=5)
"""A receiver that there is."""

OTHERS = -1
"""The worker that has the children."""


class Neighbourhood(World):
    """One workflow in the store with its children, and the signals that it has sent.

    A child whose workflow is called "failing" fails, any other gives its input back.
    """

    cancels = False
    """Whether somebody may ask for it to be cancelled."""
    letters: tuple[str, ...] = ()
    """The names of the signals that somebody may send it, in this order, each with its place in it as its number."""
    crowd = 10
    """How many of them may be there and not consumed."""

    def __init__(self, workflow: Workflow[Any, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(workflow, *args, **kwargs)
        self.store.dispatch(Dispatch(FRIEND, "friend"))
        self.cancel_asked = False
        self.posted = 0
        """How many of the letters have been sent."""

    @property
    def children(self) -> list[WorkflowRow]:
        """All that it has started."""
        return [workflow for workflow in self.store.workflows.values() if workflow.parent_id == self.id]

    @property
    def running(self) -> list[UUID]:
        """Children that have not ended."""
        return [
            workflow.id
            for workflow in self.store.workflows.values()
            if workflow.status is None and workflow.parent_id == self.id
        ]

    @property
    def detached(self) -> set[UUID]:
        """Children that its cancellation does not reach."""
        return {child.id for child in self.children if child.detached}

    @property
    def told(self) -> bool:
        """Whether ends of children are not delivered yet."""
        return bool(self.store.requests) and Request(self.id, "child") in self.store.requests

    @property
    def cancel_sent(self) -> bool:
        """Whether a request to cancel is not delivered yet."""
        return bool(self.store.requests) and Request(self.id, "cancel") in self.store.requests

    @property
    def cancel_requested(self) -> bool:
        """Whether a request to cancel is delivered, and not consumed."""
        return self._run is not None and self._run.cancel_requested

    @property
    def mailbox(self) -> int:
        """The last place in its mailbox that is taken."""
        return 0 if self._run is None else self._run.mailbox

    @property
    def post(self) -> list[SignalRow]:
        """Signals to it that are not delivered yet."""
        return [signal for signal in self._letters if signal.number is None and signal.dropped_at is None]

    @property
    def mail(self) -> list[Signal]:
        """Signals to it that are delivered and not consumed."""
        return [] if not self.posted else self.store.mailbox(self.id)

    @property
    def _letters(self) -> list[SignalRow]:
        return [] if not self.posted else [s for s in self.store.signals.values() if s.workflow_id == self.id]

    @property
    def _run(self) -> RunRow | None:
        return self.store.runs.get(self.id)

    def commit(self, worker: int, write: Write) -> datetime:
        self.store.held(worker, self.id, write.run.epoch)
        self.check_consumed(write)
        cancels = write.run_changes is not None and write.run_changes.cancels is not None
        assert self.cancel_requested or not cancels, "a request is consumed once"
        at = super().commit(worker, write)
        if cancels:
            cancelled = [request.workflow_id for request in self.store.requests if request.workflow_id in self.running]
            self.store.deliver(OTHERS, passing_over=(self.id,))
            for id in cancelled:
                self.end(id, "cancelled")
        return at

    def check_consumed(self, write: Write) -> None:
        """Each signal is taken once, the first of its name, and nothing but that stands in the listen's row."""
        listens = [row for row in write.rows if row.kind == "listen" and row.status == "completed"]
        rows = {row.location: row.output or "" for row in listens}
        consumed = [] if write.run_changes is None else write.run_changes.consumed
        mail = self.mail if consumed else []
        for id, location in consumed:
            (place,) = [place for place, signal in enumerate(mail) if signal.id == id]
            signal = mail.pop(place)
            assert all(other.name != signal.name for other in mail[:place]), "out of order"
            assert str(id) in rows[location]
        assert sum(output.count('"id"') for output in rows.values()) == len(consumed)

    def end(self, id: UUID, how: str | None = None) -> None:
        """A child ends; its parent is to be told."""
        child = self.store.workflows[id]
        how = how or ("failed" if child.name == "failing" else "completed")
        outcomes: dict[str, Outcome] = {
            "completed": Completed(child.input),
            "failed": Failed('{"type":"ValueError","message":"no luck"}'),
            "cancelled": Cancelled(),
        }
        run = self.store.take(OTHERS, id).run
        self.store.commit(OTHERS, Write(run, [], outcomes[how], lambda *_: None, lambda *_: None))

    def send(self) -> None:
        """Somebody sends the next letter."""
        body = f'{{"number":{self.posted}}}'
        self.store.send(Sending(UUID(int=1000 + self.posted), self.id, None, None, self.letters[self.posted], body))
        self.posted += 1

    def deliver(self) -> None:
        """What was told and sent takes its place in the mailbox, and wakes who sleeps on it."""
        self.store.deliver()

    def ask_to_cancel(self) -> None:
        """Somebody asks, once."""
        self.cancel_asked = self.store.cancel(self.id)

    def wake(self) -> None:
        while self.status == "sleeping":
            assert self._run is not None
            if self.told or self.cancel_sent or self.post:
                self.deliver()
            elif self.wake_at is not None:
                self.now = max(self.now, self.wake_at)
                return
            elif self._run.awaits_children and self.running:
                self.end(self.running[0])
            else:
                assert self._run.waiting_for and self.posted < len(self.letters), "asleep for ever"
                self.send()

    def around(self) -> Any:
        children = tuple(sorted((child.id, child.status or "running") for child in self.children))
        mail = self.posted, len(self.post), tuple(signal.id for signal in self.mail)
        asked = self.cancel_asked, self.cancel_sent, self.cancel_requested
        sent = tuple(sorted(signal.id for signal in self.store.signals.values() if signal.sender_id == self.id))
        return children, sent, self.told, asked, mail


class Neighbour(Incarnation):
    """One process's attempt at a workflow that has neighbours."""

    world: Neighbourhood

    def __init__(self, world: Neighbourhood) -> None:
        self.inquiries: list[tuple[Inquiry, dict[UUID, Standing | None] | None]] = []
        self.heard = world.mailbox
        self.heard_cancel = world.cancel_requested
        super().__init__(world)

    @property
    def crossing(self) -> list[Crossing]:
        """What it does to others that is on its way."""
        return self.ports.crossings

    # Host

    def cross(self, crossing: Crossing) -> None:
        assert not self.run.claimed.cancel_requested, (
            "the cancellation comes first, and is not to wait for one after the other"
        )
        self.crossing.append(crossing)

    def write(self, write: Write) -> None:
        in_flight = {crossing.command.id for crossing in self.crossing}
        for row in write.rows:
            if row.status == "cancelled" and row.seq is not None:
                id = crossing_id(self.world.id, row.location, row.kind, row.name)
                assert id not in in_flight, f"{row.kind} at {row.location} was not waited for"
        super().write(write)

    def ask(self, inquiry: Inquiry) -> None:
        self.inquiries.append((inquiry, None))

    # Choices

    def choices(self) -> list[str]:
        world = self.world
        found = super().choices()
        found.extend(f"cross {i}" for i in range(len(self.crossing)))
        if self.inquiries:
            found.append("look" if self.inquiries[0][1] is None else "answer")
        found.extend(f"end {i}" for i in range(len(world.running)))
        if world.posted < len(world.letters) and len(world.post) + len(world.mail) < world.crowd:
            found.append("send")
        if world.told or world.cancel_sent or world.post:
            found.append("deliver")
        if world.mailbox > self.heard or (world.cancel_requested and not self.heard_cancel):
            found.append("arrive")
        if world.cancels and not world.cancel_asked:
            found.append("cancel")
        return found

    def take(self, choice: str) -> None:
        what, _, index = choice.partition(" ")
        if what not in ("cross", "look", "answer", "end", "send", "deliver", "arrive", "cancel"):
            super().take(choice)
            return
        assert choice in self.choices(), f"{choice} cannot happen: {self.choices()}"
        self.happen(what, index)
        self.settle()

    def happen(self, what: str, index: str) -> None:
        world = self.world
        if what == "cross":
            self.ports.do(int(index))
        elif what == "look":
            inquiry, _ = self.inquiries[0]
            self.inquiries[0] = (inquiry, world.standings(inquiry.ids))
        elif what == "answer":
            inquiry, answers = self.inquiries.pop(0)
            assert answers is not None
            inquiry.on_answer(inquiry, answers)
        elif what == "end":
            world.end(world.running[int(index)])
        elif what == "send":
            world.send()
        elif what == "deliver":
            world.deliver()
        elif what == "cancel":
            world.ask_to_cancel()
        else:
            after, self.heard, self.heard_cancel = self.heard, world.mailbox, world.cancel_requested
            new = world.store.mailbox(world.id, after)
            self.run.receive(Arrived(world.id, world.epoch, after, world.mailbox, world.cancel_requested, signals=new))

    def around(self) -> Any:
        crossing = tuple(crossing.command.id for crossing in self.crossing)
        inquiries = tuple(
            (tuple(inquiry.ids), None if found is None else tuple(sorted(found))) for inquiry, found in self.inquiries
        )
        return crossing, inquiries, self.world.mailbox - self.heard, self.heard_cancel


class NeighbourLives(Lives):
    """One workflow with neighbours over several lives: whatever crashes, each step does what it does to others once."""

    cancels = False
    letters: tuple[str, ...] = ()
    crowd = 10
    starts_none_when_cancelled = True

    def new_world(self, workflow: Workflow[Any, Any]) -> World:
        world = Neighbourhood(workflow)
        world.cancels, world.letters, world.crowd = self.cancels, self.letters, self.crowd
        return world

    def pick(self, rng: random.Random, choices: list[str]) -> str:
        choice = super().pick(rng, choices)
        return choice if choice != "cancel" or rng.random() < 0.2 else super().pick(rng, choices)

    def new_life(self, world: World) -> Incarnation:
        assert isinstance(world, Neighbourhood)
        return Neighbour(world)

    def check_end(self, status: str = "completed") -> None:
        world = self.world
        assert isinstance(world, Neighbourhood)
        if world.cancel_asked and world.status == "cancelled":
            status = "cancelled"
        super().check_end(status)
        starts = [event for event in world.events.values() if event.kind == "child_workflow"]
        started = {event.output for event in starts if event.status == "completed"}
        there = {f'{{"id":"{child.id}"}}' for child in world.children}
        assert started <= there
        if world.cancellations and self.starts_none_when_cancelled:
            assert set(world.running) <= world.detached, (
                "the cancellation reaches all children that were there or on their way"
            )
        if not world.forgotten:
            # What was cancelled or left behind on its way may have been started, or not.
            assert len(started) <= len(there) <= len(starts)


class CancelledLives(NeighbourLives):
    """The same, and somebody may ask at any moment for it to be cancelled."""

    cancels = True


def random_life(program: Program, lives: type[NeighbourLives], seed: int) -> None:
    """Take one such workflow through random lives, and check it."""
    rng = random.Random(seed)
    one = lives(program)
    one.live(rng, crash=rng.choice((0.0, 0.05, 0.3, 0.6)))
    one.check_end()
