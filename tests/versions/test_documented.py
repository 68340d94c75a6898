"""Every edit in docs/versions.md, executed: its programs leave the histories that it shows. About 2 seconds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pgflow
from tests.execution.simulator import World
from tests.versions.lives import Program, ended, go_to_sleep, told

PAGE = Path(__file__).parents[2] / "docs" / "versions.md"
RUN = re.compile(r"(\w+)(?: to its (\d)\w\w sleep)?")


class Run(NamedTuple):
    """A run over one or more programs, and the history that it leaves."""

    heading: str
    programs: dict[str, Program]
    course: str
    history: list[str]

    def __str__(self) -> str:
        return f"{self.heading}: {self.course}"


def runs() -> list[Run]:
    """All runs that the page tells of."""
    text = PAGE.read_text(encoding="utf-8")
    found: list[Run] = []
    shared: dict[str, Any] = {}
    programs: dict[str, Program] = {}
    fresh = False
    heading = ""
    for title, language, block in re.findall(r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", text, re.M | re.S):
        if title:
            heading, programs = title, {}
        elif language == "python":
            names: dict[str, Any] = dict(shared)
            exec(compile(block, f"{PAGE.name}: {heading}", "exec"), names)
            if not heading:
                shared = names
                continue
            programs = {} if fresh else programs
            programs |= {key: value for key, value in names.items() if isinstance(value, pgflow.Workflow)}
            fresh = False
        elif language == "text":
            fresh = True
            lines = block.splitlines()
            found += [
                Run(heading, programs, course, re.split(" {3,}", history.strip()))
                for course, history in zip(lines[::2], lines[1::2], strict=True)
            ]
    return found


RUNS = runs()


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_the_history_that_stands_there(run: Run) -> None:
    *begins, end = run.course.split(", then ")
    world = World(next(iter(run.programs.values())))
    for part in begins:
        match = RUN.fullmatch(part)
        assert match is not None and match[2], part
        go_to_sleep(world, run.programs[match[1]], int(match[2]))
    before = {key: event for key, event in world.events.items() if event.status != "pending"}
    executed = [label for _, label in world.executed]
    ended(world, run.programs[end])
    assert world.status == "completed", world.error
    assert told(world) == run.history
    everything = {**world.events, **world.forgotten}
    assert all(everything[key] == event for key, event in before.items() if event.kind != "loop"), (
        "what was recorded stays"
    )
    assert [label for _, label in world.executed][: len(executed)] == executed
    assert len({label for _, label in world.executed}) == len(world.executed), "no step ran twice"
    assert all(event.status != "pending" for event in everything.values())


def test_the_page_tells_of_every_edit() -> None:
    assert len({run.heading for run in RUNS}) == 9 and len(RUNS) == 22
