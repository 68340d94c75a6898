"""A world without a database: what execution asks for, with every moment under the test's control.

Nothing happens by itself. Commits, results of activities, deadlines and advancements are choices that wait until the
test takes one; a crash forgets all that has not been committed, and a new incarnation claims what is left.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pgflow.definitions.descriptors import Workflow
from pgflow.errors import LeaseLost
from pgflow.execution.activities.runner import ActivityCall
from pgflow.execution.engine.run import Run
from pgflow.execution.event_loop.event_loop import stage
from pgflow.execution.execute import execute
from pgflow.execution.interfaces import Limits
from pgflow.history.events import Event
from pgflow.history.location import turns
from pgflow.ports import (
    Advance,
    Beside,
    Claimed,
    Completed,
    EventRow,
    Failed,
    Message,
    Outcome,
    Released,
    Suspended,
    Write,
)

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class World:
    """One workflow as the database would hold it."""

    def __init__(self, workflow: Workflow[Any, Any], *args: Any, **kwargs: Any) -> None:
        self.workflow = workflow
        self.input = workflow.encode_arguments(args, kwargs)
        self.id = UUID(int=7)
        self.now = EPOCH
        self.epoch = 0
        self.status = "pending"
        self.wake_at: datetime | None = None
        self.output: str | None = None
        self.error: str | None = None
        self.state: str | None = None
        self.tags: str | None = None
        self.cancellations: tuple[int, ...] = ()
        self.events: dict[str, Event] = {}
        self.forgotten: dict[str, Event] = {}
        self.executed: list[tuple[str, str]] = []
        """(name, location) of every activity attempt that ran."""
        self.published: list[Message] = []
        self.ended: dict[str, str] = {}
        """How every step that has ended did, by location, forgotten ones included."""
        self.writes = 0
        self.advances = 0

    def claim(self) -> Claimed:
        self.epoch += 1
        self.status = "running"
        self.now += timedelta(milliseconds=1)
        events = [self.events[key] for key in sorted(self.events)]
        return Claimed(
            self.id,
            self.workflow.name,
            "default",
            self.epoch,
            self.input,
            {},
            EPOCH,
            None,
            self.id,
            0,
            False,
            self.now,
            events,
            state=self.state,
            tags_now=json.loads(self.tags) if self.tags else None,
            cancellations=self.cancellations,
        )

    def commit(self, write: Write) -> bool:
        if write.run.epoch != self.epoch or self.status != "running":
            return False
        self.now += timedelta(milliseconds=1)
        self.writes += 1
        for row in write.rows:
            self._put(row)
        beside = write.beside or Beside()
        if beside.cancels is not None:
            self.cancellations += (beside.cancels,)
        self.state = beside.state or self.state
        self.tags = beside.tags or self.tags
        outcome = write.outcome
        if isinstance(outcome, Suspended):
            self.status, self.wake_at = "sleeping", outcome.wake_at
        elif isinstance(outcome, Completed):
            self.status, self.output = "completed", outcome.output
        elif isinstance(outcome, Failed):
            self.status, self.error = "failed", outcome.error
        elif isinstance(outcome, Released):
            self.status = "pending"
        return True

    def advance(self, advance: Advance) -> bool:
        if advance.epoch != self.epoch or self.status != "running":
            return False
        self.now += timedelta(milliseconds=1)
        self.advances += 1
        row = self.events[advance.location]
        progress = row.loop_progress or 0
        assert row.status != "completed" and progress < advance.turns
        first, last = turns(advance.location, progress, advance.turns)
        for key in [key for key in self.events if first <= key < last]:
            self.forgotten[key] = self.events.pop(key)
            advance.moved += 1
        kept, _ = turns(advance.location, max(advance.turns - advance.keep, 0), advance.turns + 1)
        for key in [k for k in self.forgotten if k.startswith(advance.location + ",") and k < kept]:
            del self.forgotten[key]
        row = row._replace(loop_progress=advance.turns, loop_state=advance.state, loop_seq=advance.started)
        if advance.breaks:
            row = row._replace(status="completed", seq=advance.seq, output=advance.output, error=None, at=self.now)
            self.ended[row.location] = row.status
        self.events[advance.location] = row
        return True

    def _put(self, row: EventRow) -> None:
        old = self.events.get(row.location)
        assert row.location not in self.ended, f"{row} is written over a step that has ended"
        assert old is None or row.attempts >= old.attempts
        values = row._asdict()
        if old is not None:
            for name in ("input", "turn_state", "turn_now", "turn_seq", "loop_progress", "loop_state", "loop_seq"):
                if values.get(name) is None:
                    values[name] = getattr(old, name)
        self.events[row.location] = Event(at=self.now, **values)
        if row.status != "pending":
            self.ended[row.location] = row.status

    def wake(self) -> None:
        """Let what a sleeping workflow waits for come."""
        if self.status == "sleeping":
            assert self.wake_at is not None, "asleep for ever"
            self.now = max(self.now, self.wake_at)

    def copied(self) -> World:
        """A copy that shares nothing that changes."""
        other = copy(self)
        for name in ("events", "forgotten", "ended"):
            setattr(other, name, dict(getattr(self, name)))
        other.executed = list(self.executed)
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
        self.journal = self
        self.loops = self
        self.limits = limits or Limits()
        self.writes: list[Write] = []
        self.advances: list[Advance] = []
        self.calls: list[ActivityCall] = []
        self.timers: list[_Timer] = []
        self.scheduled: list[Run] = []
        self.outcome: Outcome | None = None
        self.ended = False
        self.claimed_statuses = {key: event.status for key, event in world.events.items()}
        self.run = execute(world.claim(), world.workflow, self)
        self.settle()

    # Host

    def now(self) -> datetime:
        return self.world.now

    def later(self, seconds: float) -> datetime:
        return self.world.now + timedelta(seconds=seconds)

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
        self.writes.append(write)

    def advance(self, advance: Advance) -> None:
        self.advances.append(advance)

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
            write = self.writes.pop(0)
            if self.world.commit(write):
                write.on_commit(write, self.world.now)
            else:
                write.on_refused(write, LeaseLost("lost"))
        elif what == "advance":
            advance = self.advances.pop(0)
            if self.world.advance(advance):
                advance.on_commit(advance, self.world.now)
            else:
                advance.on_refused(advance, LeaseLost("lost"))
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
