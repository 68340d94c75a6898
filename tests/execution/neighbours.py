"""The simulator with other workflows around: children, signals, and requests to cancel, each of their moments a choice.

cross     what a step does to another workflow commits, and is answered
look      the database answers how children stand; `answer` brings it to the run, perhaps much later
end       a child ends, and its parent is to be told
send      somebody sends the workflow a signal
deliver   all that is numbered in the mailbox, and wakes who sleeps; `arrive` tells the run in memory
cancel    somebody asks, once, that the workflow be cancelled
"""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

from pgflow.definitions.calls import Dispatch, Dispatched, Sending, Sent, Standing
from pgflow.definitions.descriptors import Workflow
from pgflow.errors import LeaseLost
from pgflow.history.identity import crossing_id
from pgflow.ports import (
    Arrived,
    Cancelled,
    Claimed,
    Crossing,
    Inquiry,
    Signal,
    Suspended,
    Write,
)
from tests.execution.lives import Lives, Program
from tests.execution.simulator import Incarnation, World

NOBODY = UUID(int=404)
"""A receiver that there is not."""


class Neighbourhood(World):
    """One workflow as the database holds it, its children, and the signals that it has sent.

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
        self.children: dict[UUID, Standing] = {}
        self.detached: set[UUID] = set()
        self.sent: dict[UUID, str] = {}
        self.mailbox = 0
        self.told = 0
        """Ends of children that are not delivered yet."""
        self.cancel_asked = self.cancel_sent = self.cancel_requested = False
        self.posted = 0
        """How many of the letters have been sent."""
        self.post: list[Signal] = []
        """Those that are not delivered yet."""
        self.mail: dict[UUID, Signal] = {}
        """Those that are delivered and not consumed."""
        self.waiting_for: tuple[str, ...] = ()
        self.awaits_children = False

    def claim(self) -> Claimed:
        claimed = super().claim()
        claimed.mailbox, claimed.cancel_requested = self.mailbox, self.cancel_requested
        claimed.signals = list(self.mail.values())
        return claimed

    def commit(self, write: Write) -> bool:
        if not super().commit(write):
            return False
        self.consume(write)
        if write.beside is not None and write.beside.cancels:
            assert self.cancel_requested, "a request is consumed once"
            self.cancel_requested = False
            for id, child in self.children.items():
                if child.status == "running" and id not in self.detached:
                    self.end(id, "cancelled")
        outcome = write.outcome
        if isinstance(outcome, Suspended):
            self.awaits_children, self.waiting_for = outcome.awaits_children, outcome.waiting_for
            if self.mailbox > outcome.mailbox or self.cancel_requested:
                self.status = "pending"
        elif isinstance(outcome, Cancelled):
            self.status = "cancelled"
        return True

    def consume(self, write: Write) -> None:
        """Take what listens have taken: each once, the first of its name, and nothing but that stands in the listen's
        row.
        """
        rows = {
            row.location: row.output or "" for row in write.rows if row.kind == "listen" and row.status == "completed"
        }
        consumed = [] if write.beside is None else write.beside.consumed
        for id, location in consumed:
            signal = self.mail.pop(id)
            assert all(other.name != signal.name or other.number > signal.number for other in self.mail.values()), (
                "out of order"
            )
            assert str(id) in rows[location]
        assert sum(output.count('"id"') for output in rows.values()) == len(consumed)

    def cross(self, crossing: Crossing) -> Sent | Dispatched | None:
        """Do what is asked, once for each id; None: the lease is gone."""
        if crossing.epoch != self.epoch or self.status != "running":
            return None
        command = crossing.command
        if isinstance(command, Dispatch):
            created = command.id not in self.children
            if created:
                self.children[command.id] = Standing(command.id, command.name, "running", command.input, None)
                if command.detached:
                    self.detached.add(command.id)
            return Dispatched(command.id, command.name, created)
        assert isinstance(command, Sending)
        if command.workflow_id == NOBODY:
            return Sent(None, None, 0)
        self.sent.setdefault(command.id, command.body)
        return Sent(command.workflow_id, None, 0)

    @property
    def running(self) -> list[UUID]:
        """Children that have not ended."""
        return [id for id, child in self.children.items() if child.status == "running"]

    def end(self, id: UUID, how: str | None = None) -> None:
        """A child ends; its parent is to be told."""
        child = self.children[id]
        how = how or ("failed" if child.name == "failing" else "completed")
        error = '{"type":"ValueError","message":"no luck"}' if how == "failed" else None
        self.children[id] = child._replace(status=how, output=child.output if how == "completed" else None, error=error)
        self.told += 1

    def send(self) -> None:
        """Somebody sends the next letter."""
        self.post.append(
            Signal(UUID(int=1000 + self.posted), 0, self.letters[self.posted], f'{{"number":{self.posted}}}')
        )
        self.posted += 1

    def deliver(self) -> None:
        """What was told and sent takes its place in the mailbox, and wakes who sleeps on it."""
        told, self.told = self.told, 0
        self.mailbox += told
        post, self.post = self.post, []
        for signal in post:
            self.mailbox += 1
            self.mail[signal.id] = signal._replace(number=self.mailbox)
        self.cancel_requested = self.cancel_requested or self.cancel_sent
        self.cancel_sent = False
        wanted = (told and self.awaits_children) or any(signal.name in self.waiting_for for signal in post)
        if self.status == "sleeping" and (self.cancel_requested or wanted):
            self.status = "pending"

    def ask_to_cancel(self) -> None:
        """Somebody asks, once."""
        self.cancel_asked = self.cancel_sent = True

    def wake(self) -> None:
        while self.status == "sleeping":
            if self.told or self.cancel_sent or self.post:
                self.deliver()
            elif self.wake_at is not None:
                self.now = max(self.now, self.wake_at)
                return
            elif self.awaits_children and self.running:
                self.end(self.running[0])
            else:
                assert self.waiting_for and self.posted < len(self.letters), "asleep for ever"
                self.send()

    def copied(self) -> Neighbourhood:
        other = super().copied()
        assert isinstance(other, Neighbourhood)
        other.children, other.sent, other.detached = dict(self.children), dict(self.sent), set(self.detached)
        other.post, other.mail = list(self.post), dict(self.mail)
        return other

    def around(self) -> Any:
        children = tuple((id, child.status) for id, child in sorted(self.children.items()))
        mail = self.posted, len(self.post), tuple(self.mail)
        asked = self.cancel_asked, self.cancel_sent, self.cancel_requested
        return children, tuple(sorted(self.sent)), self.told > 0, asked, mail


class Neighbour(Incarnation):
    """One process's attempt at a workflow that has neighbours."""

    world: Neighbourhood

    def __init__(self, world: Neighbourhood) -> None:
        self.crossings = self
        self.crossing: list[Crossing] = []
        self.inquiries: list[tuple[Inquiry, dict[UUID, Standing | None] | None]] = []
        self.heard = world.mailbox
        self.heard_cancel = world.cancel_requested
        super().__init__(world)

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
            crossing = self.crossing.pop(int(index))
            answer = world.cross(crossing)
            if answer is None:
                crossing.on_refused(crossing, LeaseLost("lost"))
            else:
                crossing.on_done(crossing, answer)
        elif what == "look":
            inquiry, _ = self.inquiries[0]
            children = world.children
            found = {
                id: children.get(id) for id in inquiry.ids if id not in children or children[id].status != "running"
            }
            self.inquiries[0] = (inquiry, found)
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
            new = [signal for signal in world.mail.values() if signal.number > after]
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
        there = {f'{{"id":"{id}"}}' for id in world.children}
        assert started <= there
        if (
            world.cancel_asked
            and not world.cancel_sent
            and not world.cancel_requested
            and self.starts_none_when_cancelled
        ):
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
