"""Runs of one workflow under code that changes on the way, in a world without a database."""

from __future__ import annotations

import json
from typing import Any

import pgflow
from pgflow.history.location import decode, display
from tests.execution.simulator import Incarnation, World, finish

Program = pgflow.Workflow[Any, Any]


def begun(program: Program, sleeps: int = 1) -> World:
    """A run that is in its first sleep, or in a later one."""
    world = World(program)
    go_to_sleep(world, program, sleeps)
    return world


def go_to_sleep(world: World, program: Program, sleeps: int) -> None:
    """Go on under `program` until the run has begun to sleep so many times since it was started."""
    world.workflow = program
    while slept(world) < sleeps:
        wake(world)
        life = Incarnation(world)
        while not life.ended:
            life.take(life.choices()[0])
        assert world.status == "sleeping", f"it is {world.status} before its sleep number {sleeps}: {world.error}"


def slept(world: World) -> int:
    """How many sleeps have been begun."""
    return sum(event.kind == "sleep" for event in [*world.events.values(), *world.forgotten.values()])


def wake(world: World) -> None:
    """The next deadline has come."""
    if world.wake_at is not None:
        world.now = max(world.now, world.wake_at)


def ended(world: World, program: Program) -> World:
    """The run at its end, under `program` from here on."""
    world.workflow = program
    return finish(world)


def told(world: World) -> list[str]:
    """History as the documentation writes it: locations in the order of execution, names, versions that are not 1."""
    events = {**world.events, **world.forgotten}
    return [
        f"{display(key)} {event.name if event.kind == 'activity' else event.kind}"
        f"{f' v{event.version}' if event.version != 1 else ''}"
        for key, event in sorted(events.items(), key=lambda item: decode(item[0]))
    ]


def failure(world: World) -> tuple[str, str]:
    """Class and message of a failed run."""
    assert world.status == "failed", world.status
    error = json.loads(world.error or "")
    return error["type"], error["message"]
