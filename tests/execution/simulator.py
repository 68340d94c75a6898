"""A world without a database: what execution asks for, with every moment under the test's control.

Nothing happens by itself. Commits, results of activities, deadlines and advancements are choices that wait until the
test takes one; a crash forgets all that has not been committed, and a new incarnation claims what is left.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

from pgflow.definitions.descriptors import Workflow
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.engine.host import Limits
from pgflow.execution.engine.run import Run
from pgflow.execution.event_loop.stage import stage
from pgflow.execution.execute import execute
from pgflow.history.events import Event
from pgflow.model.claimed import Claimed
from pgflow.model.commands import Dispatch, Dispatched, Sent, Standing
from pgflow.model.outcomes import Outcome
from pgflow.model.rows import Message
from pgflow.model.writes import Advance, Crossing, Inquiry, Write
from pgflow.testing.memory import Memory
from pgflow.testing.memory_ports import MemoryPorts
from pgflow.testing.memory_rows import RunRow, WorkflowRow

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class World:
    """One workflow in a store in memory, and what must hold of each of its writes."""

    def __init__(self, workflow: Workflow[Any, Any], *args: Any, **kwargs: Any) -> None:
        self.workflow = workflow
        self.input = workflow.encode_arguments(args, kwargs)
        self.id = UUID(int=7)
        self.store = Memory(EPOCH)
        self.store.dispatch(Dispatch(self.id, workflow.name, self.input))
        self.lives = 0
        """How many processes have had it; the number of the last one."""
        self.epoch = 0
        self.executed: list[tuple[str, str]] = []
        """(name, location) of every activity attempt that ran."""
        self.published: list[Message] = []
        self.ended: dict[str, str] = {}
        """How every step that has ended did, by location, forgotten ones included."""
        self.writes = 0
        self.advances = 0

    @property
    def row(self) -> WorkflowRow:
        """What is kept with the workflow."""
        return self.store.workflows[self.id]

    @property
    def now(self) -> datetime:
        return self.store.now

    @now.setter
    def now(self, now: datetime) -> None:
        self.store.now = now

    @property
    def status(self) -> str:
        return self.store.status(self.id)

    @status.setter
    def status(self, status: str) -> None:
        """Let it go on, by hand, wherever it is: what a retry comes to."""
        assert status == "pending"
        self.store.workflows[self.id] = self.row._replace(status=None, error=None, completed_at=None)
        row = RunRow(self.id, self.row.name, "default", 0, status, self.now, self.epoch)
        run = self.store.runs.get(self.id, row)  # one that has failed goes on with the places of its mailbox
        self.store.runs[self.id] = run._replace(status=status, wake_at=self.now, worker=None)

    @property
    def wake_at(self) -> datetime | None:
        run = self.store.runs.get(self.id)
        return None if run is None else run.wake_at

    @property
    def output(self) -> str | None:
        return self.row.output

    @property
    def error(self) -> str | None:
        return self.row.error

    @property
    def cancellations(self) -> tuple[int, ...]:
        return self.row.cancellations

    @property
    def events(self) -> dict[str, Event]:
        """Active history, by location."""
        return self.store.events.setdefault(self.id, {})

    @property
    def forgotten(self) -> dict[str, Event]:
        """Forgotten history, by location."""
        return self.store.forgotten.setdefault(self.id, {})

    def claim(self) -> Claimed:
        """A new process takes it, whoever had it, and whether it has ended or not."""
        if self.id not in self.store.runs:
            self.status = "pending"
        self.lives += 1
        claimed = self.store.take(self.lives, self.id)
        self.epoch = claimed.epoch
        return claimed

    # What a life's ports are answered by: the store, with what must hold.

    def commit(self, worker: int, write: Write) -> datetime:
        """Nothing is written over a step that has ended, and no attempt is counted down."""
        self.store.held(worker, self.id, write.run.epoch)
        for row in write.rows:
            assert row.location not in self.ended, f"{row} is written over a step that has ended"
            old = self.events.get(row.location)
            assert old is None or row.attempts >= old.attempts
            if row.status != "pending":
                self.ended[row.location] = row.status
        self.writes += 1
        return self.store.commit(worker, write)

    def advance(self, worker: int, advance: Advance) -> datetime:
        """No loop is advanced twice to the same turn."""
        self.store.held(worker, self.id, advance.epoch)
        row = self.events[advance.location]
        assert row.status != "completed" and (row.loop_progress or 0) < advance.turns
        if advance.breaks:
            self.ended[row.location] = "completed"
        self.advances += 1
        return self.store.advance(worker, advance)

    def cross(self, worker: int, crossing: Crossing) -> Sent | Dispatched:
        """Do what is asked, once for each id."""
        return self.store.cross(worker, crossing)

    def standings(self, ids: Iterable[UUID]) -> dict[UUID, Standing | None]:
        """How workflows have ended."""
        return self.store.standings(ids)

    def wake(self) -> None:
        """Let what a sleeping workflow waits for come."""
        if self.status == "sleeping":
            assert self.wake_at is not None, "asleep for ever"
            self.now = max(self.now, self.wake_at)

    def copied(self) -> Self:
        """A copy that shares nothing that changes."""
        other = copy(self)
        other.store = self.store.copied()
        other.executed, other.ended = list(self.executed), dict(self.ended)
        return other

    def around(self) -> Any:
        """What else is durable that makes one state another."""
        return None

    def locations(self) -> list[tuple[str, str, str]]:
        """(location, kind, status) of active history, in order."""
        return [(key, self.events[key].kind, self.events[key].status) for key in sorted(self.events)]


class _Timer:
    def __init__(self, when: datetime, callback: Callable[[], None]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Incarnation:
    """One process's attempt at the workflow; a `Host`. Choose what happens with `take`, or end it with `crash`."""

    def __init__(self, world: World, limits: Limits | None = None) -> None:
        self.world = world
        self.limits = limits or Limits()
        self.calls: list[ActivityCall] = []
        self.timers: list[_Timer] = []
        self.scheduled: list[Run] = []
        self.outcome: Outcome | None = None
        self.ended = False
        self.claimed_statuses = {key: event.status for key, event in world.events.items()}
        claimed = world.claim()
        self.journal = self.loops = self.crossings = self
        self.ports = MemoryPorts(world, world.lives)
        self.writes, self.advances = self.ports.writes, self.ports.advances
        self.run = execute(claimed, world.workflow, self)
        self.settle()

    # Host

    def now(self) -> datetime:
        return self.world.now

    def later(self, seconds: float) -> datetime:
        return self.world.now + timedelta(seconds=seconds)

    def attempt_failed(self, activity: str, again: bool) -> None:
        """Nobody counts."""

    def observe_time(self, at: datetime) -> None:
        assert at <= self.world.now

    def schedule(self, run: Run) -> None:
        if not run.scheduled:
            run.scheduled = True
            self.scheduled.append(run)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(when, callback)
        self.timers.append(timer)
        return timer

    def start_activity(self, call: ActivityCall) -> None:
        self.calls.append(call)

    def publish(self, messages: Sequence[Message]) -> None:
        self.world.published.extend(messages)

    def asked(self) -> None:
        pass

    def keep(self, run: Run) -> bool:
        return False

    def finished(self, run: Run, outcome: Outcome | None) -> None:
        assert not self.ended, "a run may leave memory only once"
        self.outcome, self.ended = outcome, True

    def write(self, write: Write) -> None:
        self.ports.write(write)

    def advance(self, advance: Advance) -> None:
        self.ports.advance(advance)

    def cross(self, crossing: Crossing) -> None:
        self.ports.cross(crossing)

    def ask(self, inquiry: Inquiry) -> None:
        self.ports.ask(inquiry)

    # Choices

    def settle(self) -> None:
        """Pump until nothing is scheduled."""
        for _ in range(100_000):
            if not self.scheduled:
                return
            run = self.scheduled.pop(0)
            run.scheduled = False
            with stage():
                run.pump()
        raise AssertionError("the run does not come to rest")

    def choices(self) -> list[str]:
        """What could happen next."""
        found: list[str] = []
        if self.writes:
            found.append("commit")
        if self.advances:
            found.append("advance")
        self.calls = [call for call in self.calls if not call.cancelled]
        found.extend(f"activity {i}" for i in range(len(self.calls)))
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        if self.timers:
            found.append("timer")
        return found

    def take(self, choice: str) -> None:
        """Let one thing happen."""
        assert choice in self.choices(), f"{choice} cannot happen: {self.choices()}"
        what, _, index = choice.partition(" ")
        self.perform(what, int(index or 0))

    def go_on(self) -> None:
        """Let the next thing happen, without listing what could: what was called last completes first."""
        while self.calls and self.calls[-1].cancelled:
            self.calls.pop()
        self.timers = [timer for timer in self.timers if not timer.cancelled]
        for what, there in (("commit", self.writes), ("advance", self.advances), ("activity", self.calls)):
            if there:
                return self.perform(what, -1 if what == "activity" else 0)
        self.perform("timer", 0)

    def perform(self, what: str, index: int) -> None:
        """Do what a choice says, the one of that index of its kind."""
        if what == "commit":
            self.ports.commit()
        elif what == "advance":
            self.ports.forget()
        elif what == "activity":
            self._perform(self.calls.pop(index))
        else:
            timer = min(self.timers, key=lambda timer: timer.when)
            self.timers.remove(timer)
            self.world.now = max(self.world.now, timer.when)
            timer.callback()
        self.settle()

    def _perform(self, call: ActivityCall) -> None:
        location = call.label
        self.world.executed.append((call.activity.name, location))
        args, kwargs = call.activity.decode_arguments(call.input)
        output: str | None = None
        failure: BaseException | None = None
        try:
            value = call.activity.fn(call.context, *args, **kwargs)
            if asyncio.iscoroutine(value):
                try:
                    value.send(None)
                except StopIteration as stop:
                    value = stop.value
                else:
                    raise AssertionError("activities of the simulator do not wait")
            output = call.activity.encode_result(value)
        except Exception as error:
            failure = error
        call.caller.attempt_ended(output, failure)

    def around(self) -> Any:
        """What else is on its way that makes one state another."""
        return None

    def crash(self) -> None:
        """SIGKILL: whatever was not committed never was."""
        self.ended = True
        self.run.discard()


def finish(world: World, choose: Callable[[list[str]], int] | None = None, crash: float = 0.0, seed: int = 0) -> World:
    """Run the workflow to its end, waking it when it sleeps, crashing it at random."""
    rng = random.Random(seed)
    for _ in range(10_000):
        if world.status in ("completed", "failed"):
            return world
        world.wake()
        life = Incarnation(world)
        while not life.ended:
            if crash and rng.random() < crash:
                life.crash()
                break
            choices = life.choices()
            assert choices, f"nothing can happen any more: {world.locations()}"
            life.take(choices[choose(choices) if choose else rng.randrange(len(choices))])
    raise AssertionError("the workflow does not end")
