"""One workflow over several lives, each ended by a crash, and what must hold after every event:

- what an earlier life saw is the beginning of what a later one sees, except for turns that the later one does not
  replay;
- no activity runs whose result was recorded, nothing is written over a step that has ended;
- no row is committed at a location while a step called earlier in its branch has none;
- a place in the order of completion belongs to one delivery.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pgflow
from pgflow.history.events import HistoryIndex
from pgflow.history.location import display, turn
from tests.execution.simulator import Incarnation, World


class Seen:
    """What the code of one life has seen, in order, and on which branch."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []

    def append(self, what: object, ctx: pgflow.WorkflowContext | None = None) -> None:
        self.entries.append(("" if ctx is None else ctx._scope.location, str(what)))


Program = Callable[[Seen], pgflow.Workflow[Any, Any]]


class Lives:
    """One workflow, from its first life to its last.

    Args:
        program: builds the workflow anew for each life, with what it writes down what it sees.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.seen = Seen()
        self.world = self.new_world(program(self.seen))
        self.longest: list[tuple[str, str]] = []
        self._checked = (0, 0)

    def new_world(self, workflow: pgflow.Workflow[Any, Any]) -> World:
        """The workflow, before its first life."""
        return World(workflow)

    def new_life(self, world: World) -> Incarnation:
        """A claim of what is left."""
        return Incarnation(world)

    def begin(self) -> Incarnation:
        """A new process claims what is left."""
        self.seen = Seen()
        self.world.workflow = self.program(self.seen)
        self.longest = without_ended_turns(self.world, self.longest)
        self.world.wake()
        life = self.new_life(self.world)
        self.check()
        return life

    def take(self, life: Incarnation, choice: str) -> None:
        """Let one thing happen."""
        ended = {display(key) for key in self.world.ended}
        before = len(self.world.executed)
        life.take(choice)
        for _, label in self.world.executed[before:]:
            assert label.rpartition(" at ")[2] not in ended, f"{label} ran after its result was recorded"
        self.check()

    def check(self) -> None:
        seen = self.seen.entries
        shorter = min(len(seen), len(self.longest))
        assert seen[:shorter] == self.longest[:shorter], f"the code saw {seen}, before it had seen {self.longest}"
        if len(seen) > len(self.longest):
            self.longest = list(seen)
        now = (self.world.writes, self.world.advances)
        if now != self._checked:
            self._checked = now
            check_no_holes(self.world)

    @property
    def ended(self) -> bool:
        return self.world.status in ("completed", "failed", "cancelled")

    def live(self, rng: random.Random, crash: float) -> None:
        """Take whatever comes, and crash so often, until the workflow has ended."""
        for _ in range(1000):
            if self.ended:
                return
            life = self.begin()
            while not life.ended:
                choices = life.choices()
                assert choices, f"stuck: {self.world.locations()}"
                self.take(life, self.pick(rng, choices))
                if not life.ended and rng.random() < crash:
                    life.crash()
        raise AssertionError(f"it does not end: {self.world.locations()}")

    def pick(self, rng: random.Random, choices: list[str]) -> str:
        """What happens next in a random life."""
        return rng.choice(choices)

    def check_end(self, status: str = "completed") -> None:
        """The workflow has ended as it should, and a replay of its history sees and gives the same."""
        assert self.world.status == status, self.world.error
        for event in self.world.events.values():
            assert event.status != "pending", event
        check_places(self.world)
        self.check_replay()

    def check_replay(self) -> None:
        """All of history again: the same to see, the same outcome, and nothing to write or to run."""
        before = without_ended_turns(self.world, self.longest)
        again = self.world.copied()
        again.status, again.executed = "pending", []
        seen = Seen()
        again.workflow = self.program(seen)
        life = self.new_life(again)
        assert seen.entries == before, f"the replay saw {seen.entries}, before it had seen {before}"
        assert not life.calls and len(life.writes) == 1 and not life.writes[0].rows
        life.take("commit")
        assert (again.status, again.output) == (self.world.status, self.world.output)


def without_ended_turns(world: World, entries: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a life that begins now sees again of what was seen before: all but the turns that it does not replay."""
    history = HistoryIndex([world.events[key] for key in sorted(world.events)])
    left = entries
    for key, event in world.events.items():
        if event.kind != "loop":
            continue
        if event.status == "completed":
            skipped = (key + ",", key + "-")
        else:
            last = history.last_turn(key)
            skipped = (turn(key, 0), turn(key, max(event.loop_progress or 0, last or 0)))
        left = [entry for entry in left if not skipped[0] <= entry[0] < skipped[1]]
    return left


def check_no_holes(world: World) -> None:
    """The heads of each branch count 1, 2, 3 without a gap (no version but 1 is called here); turns may
    be forgotten.
    """
    branches: dict[str, list[int]] = {}
    for key in world.events:
        parent, _, coordinate = key.rpartition(",")
        branches.setdefault(parent, []).append(int(coordinate.lstrip("abc")))
    for parent, heads in branches.items():
        assert sorted(heads) == list(range(1, len(heads) + 1)), f"a hole under {parent!r}: {sorted(heads)}"
        if parent:
            owner = parent if parent in world.events else parent.rpartition(",")[0]
            assert owner in world.events, f"rows under {parent!r}, which has no row itself"


def check_places(world: World) -> None:
    """A place in the order of completion is that of one result, of a timeout and what it cancelled, or of what a body
    left.
    """
    places: dict[int, list[str]] = {}
    for event in world.events.values():
        if event.seq is not None:
            places.setdefault(event.seq, []).append(
                "timeout" if event.kind == "timeout" and event.status == "failed" else event.status
            )
    for seq, found in places.items():
        if len(found) > 1:
            kinds = set(found)
            assert kinds in ({"abandoned"}, {"cancelled"}, {"timeout", "cancelled"}), (seq, found)
            assert found.count("timeout") <= 1, (seq, found)
