"""Whatever completes in whatever order, and wherever the process dies: the code sees again what it has seen.

Small programs are taken through every order of events and a crash after each; larger ones through thousands of random
lives. After each: what an earlier life saw is the beginning of what a later one saw, no activity runs whose result was
recorded, and history has no hole.
"""

from __future__ import annotations

import random

import pytest

from pgflow.history.location import decode, display
from tests.execution.programs import PROGRAMS, Program, Seen
from tests.execution.simulator import Incarnation, World


class Lives:
    """One workflow over several lives, with the checks that hold after each choice."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.seen: Seen = []
        self.world = World(program(self.seen))
        self.longest: Seen = []

    def begin(self) -> Incarnation:
        """A new process claims what is left."""
        self.seen = []
        self.world.workflow = self.program(self.seen)
        if self.world.status == "sleeping":
            assert self.world.wake_at is not None, "asleep for ever"
            self.world.now = max(self.world.now, self.world.wake_at)
        life = Incarnation(self.world)
        self.check()
        return life

    def take(self, life: Incarnation, choice: str) -> None:
        ended = {display(key) for key, event in self.world.events.items() if event.status != "pending"}
        before = len(self.world.executed)
        life.take(choice)
        for _, label in self.world.executed[before:]:
            assert label.rpartition(" at ")[2] not in ended, f"{label} ran after its result was recorded"
        self.check()

    def check(self) -> None:
        shorter = min(len(self.seen), len(self.longest))
        assert self.seen[:shorter] == self.longest[:shorter], "the code saw another order"
        if len(self.seen) > len(self.longest):
            self.longest = list(self.seen)
        check_no_holes(self.world)

    @property
    def ended(self) -> bool:
        return self.world.status in ("completed", "failed")

    def check_end(self) -> None:
        assert self.world.status == "completed", self.world.error
        for event in self.world.events.values():
            assert event.status != "pending", event
        seqs = [event.seq for event in self.world.events.values() if event.seq and event.status in ("completed", "failed")]
        assert len(seqs) == len(set(seqs))


def check_no_holes(world: World) -> None:
    """The heads of each branch count 1, 2, 3 without a gap (no version but 1 is called here); turns may be forgotten."""
    branches: dict[str, list[int]] = {}
    for key in world.events:
        parent, _, _ = key.rpartition(",")
        branches.setdefault(parent, []).append(decode(key)[-1][0])
    for parent, heads in branches.items():
        assert sorted(heads) == list(range(1, len(heads) + 1)), f"a hole under {parent!r}: {sorted(heads)}"
        above = parent
        if above:
            owner = above if above in world.events else above.rpartition(",")[0]
            assert owner in world.events, f"rows under {parent!r}, which has no row itself"


@pytest.mark.parametrize("name", PROGRAMS)
def test_random_lives(name: str) -> None:
    for seed in range(300):
        rng = random.Random(seed)
        crash = rng.choice((0.0, 0.05, 0.3, 0.6))
        lives = Lives(PROGRAMS[name])
        for _ in range(1000):
            if lives.ended:
                break
            life = lives.begin()
            while not life.ended:
                choices = life.choices()
                assert choices, f"stuck: {lives.world.locations()}"
                lives.take(life, rng.choice(choices))
                if not life.ended and rng.random() < crash:
                    life.crash()
        lives.check_end()


@pytest.mark.parametrize("name", ["joined", "task_group", "first_of", "timed", "abandoned"])
def test_every_order_with_a_crash_after_each_choice(name: str) -> None:
    """Depth first over all orders of the first choices; every prefix is also crashed, and finished from there."""
    budget = 4_000
    stack: list[tuple[int, ...]] = [()]
    explored = 0
    while stack and explored < budget:
        path = stack.pop()
        explored += 1
        lives = Lives(PROGRAMS[name])
        life = lives.begin()
        for index in path:
            lives.take(life, life.choices()[index])
        if not life.ended and len(path) < 9:
            stack.extend((*path, index) for index in range(len(life.choices())))
        if not life.ended:
            life.crash()
        rng = random.Random(explored)
        while not lives.ended:
            life = lives.begin()
            while not life.ended:
                lives.take(life, rng.choice(life.choices()))
        lives.check_end()
    assert explored > 100
