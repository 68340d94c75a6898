"""Random programs, edited twice at random while a run is on its way, and crashed: the run fits each edit and reaches
its end.

No recorded step runs again, what was recorded stays, and each branch's history is in the order of the code. About 6
seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

import pytest

import pgflow
from pgflow.history.location import display
from pgflow.testing import replay
from tests.execution.programs import echo
from tests.execution.simulator import Incarnation, World
from tests.testing.stored import stored
from tests.versions.lives import Program, wake

Calls = dict[str, list[str]]
"""Names of the steps that the code called, by the branch that it called them in."""


@dataclass
class Node:
    """One piece of a program: a step, a branch, what was one of the two, or a choice by version."""

    sort: Literal["activity", "sleep", "branch", "removed", "check"]
    name: str
    version: int = 1
    was: str = ""
    inside: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


class Editor:
    """Writes programs and edits them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = 0

    def program(self, version: int = 1, depth: int = 0) -> list[Node]:
        return [self.node(version, depth) for _ in range(self.rng.randint(1, 4 - depth))]

    def node(self, version: int, depth: int) -> Node:
        self.names += 1
        name = f"n{self.names}"
        if depth < 2 and self.rng.random() < 0.25:
            return Node("branch", name, version, inside=self.program(version, depth + 1))
        return Node("sleep" if self.rng.random() < 0.2 else "activity", name, version)

    def edited(self, nodes: list[Node], version: int, depth: int = 0) -> list[Node]:
        """A program with insertions, removals and choices at a version; what is inside of an insertion is not its own
        program.
        """
        found: list[Node] = []
        for node in nodes:
            if self.rng.random() < 0.3:
                found.append(self.node(version, depth))
            what = self.rng.random()
            inside = self.edited(node.inside, version, depth + 1) if node.sort in ("branch", "check") else []
            otherwise = self.edited(node.otherwise, version, depth + 1)
            if node.sort in ("activity", "sleep", "branch") and what < 0.15:
                found.append(Node("removed", node.name, node.version, was=node.sort))
            elif node.sort == "activity" and node.version == 1 and what < 0.25:
                found.append(Node("check", node.name, version, inside=self.program(1, 2), otherwise=[node]))
            else:
                found.append(Node(node.sort, node.name, node.version, node.was, inside, otherwise))
        if self.rng.random() < 0.3:
            found.append(self.node(version, depth))
        return found


def written(nodes: list[Node], calls: Calls) -> Program:
    """The program as a workflow."""

    async def walk(ctx: pgflow.WorkflowContext, nodes: list[Node], where: str) -> None:
        for node in nodes:
            at = ctx.v(node.version)
            if node.sort == "check":
                taken = node.inside if await ctx.check_version(node.version) >= node.version else node.otherwise
                await walk(ctx, taken, where)
            elif node.sort == "removed":
                await at.removed(node.was, node.name if node.was == "activity" else "")
            else:
                calls.setdefault(where, []).append(node.name if node.sort == "activity" else node.sort)
                if node.sort == "activity":
                    await at.activity(echo.options(name=node.name), node.name)
                elif node.sort == "sleep":
                    await at.sleep(5)
                else:
                    inside = node.inside
                    number = len(calls[where])

                    async def branch(
                        ctx: pgflow.WorkflowContext, inside: list[Node] = inside, below: str = f"{where}/{number}"
                    ) -> None:
                        await walk(ctx, inside, below)

                    await at.branch(branch)

    @pgflow.workflow(name="edited")
    async def edited(ctx: pgflow.WorkflowContext) -> str:
        await walk(ctx, nodes, "")
        return "end"

    return edited


def rows_by_branch(world: World) -> list[list[str]]:
    """Names of the steps on each branch, in the order of locations, marks left out; what `removed` passes is among
    them.
    """
    branches: dict[str, list[str]] = {}
    for key in sorted(world.events):
        event = world.events[key]
        if event.kind not in ("removed", "version_check"):
            branches.setdefault(key.rpartition(",")[0], []).append(
                event.name if event.kind == "activity" else event.kind
            )
    return list(branches.values())


def contains(rows: list[str], called: list[str]) -> bool:
    """Whether `called` are among `rows` in this order."""
    left = iter(rows)
    return all(any(row == name for row in left) for name in called)


class Life:
    """One run over all editions of its program."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        editor = Editor(rng)
        first = editor.program()
        second = editor.edited(first, 2)
        self.editions = [first, second, editor.edited(second, 3)]
        self.calls: Calls = {}
        self.world = World(written(first, self.calls))

    def under(self, edition: int, choices: int) -> None:
        """Go on under an edition for so many choices, with crashes, or to the end."""
        world, rng = self.world, self.rng
        while choices > 0 and world.status not in ("completed", "failed"):
            self.calls = {}
            world.workflow = written(self.editions[edition], self.calls)
            if world.status == "sleeping":
                wake(world)
            life = Incarnation(world)
            while not life.ended and choices > 0:
                recorded = dict(world.events)
                done = {f"at {location}" for location in self.ended_locations()}
                executed = len(world.executed)
                life.take(rng.choice(life.choices()))
                choices -= 1
                for _, label in world.executed[executed:]:
                    assert not any(label.endswith(location) for location in done), f"{label} ran again"
                for key, event in recorded.items():
                    assert event.status == "pending" or world.events[key] == event, f"{key} has changed"
                if rng.random() < 0.03:
                    break
            if not life.ended:
                life.crash()

    def ended_locations(self) -> list[str]:
        return [display(key) for key, event in self.world.events.items() if event.status != "pending"]


@pytest.mark.parametrize("part", range(4))
def test_a_run_fits_every_edit(part: int) -> None:
    for seed in range(part * 100, part * 100 + 100):
        life = Life(seed)
        reached = 0
        for edition, choices in enumerate((life.rng.randint(0, 20), life.rng.randint(0, 20), 10_000)):
            if life.world.status != "completed":
                life.under(edition, choices)
                reached = edition
        assert life.world.status == "completed", f"seed {seed}: {life.world.error}"
        rows = rows_by_branch(life.world)
        for called in life.calls.values():
            assert any(contains(found, called) for found in rows), f"seed {seed}: {called} not in the order of {rows}"
        again: Calls = {}
        found = replay(written(life.editions[reached], again), stored(life.world))
        assert (found.status, found.same_output) == ("completed", True), f"seed {seed}"
        assert again == life.calls
