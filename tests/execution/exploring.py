"""Every state that a small program can reach, by any order of completions, commits and crashes.

    a claim -> a choice -> a choice -> ... -> the end
       ^          | crash     | crash
       '----------'-----------'

A state is what is durable, what is on its way, and what the code has seen. Each is reached once, by running the program
anew along a path to it; a crash leads from each to the claim of what is durable there. So every subset and every order
of completions is met, and any number of crashes one after the other.
"""

from __future__ import annotations

from typing import Any

from tests.execution.lives import Lives, Program
from tests.execution.simulator import Incarnation, World


class Explorer:
    """Explores one program.

    Args:
        limit: states at which it gives up: the program is too large for this.
        lives: the kind of lives that it goes through.
    """

    def __init__(self, program: Program, limit: int = 20_000, lives: type[Lives] = Lives) -> None:
        self._program = program
        self._lives = lives
        self._limit = limit
        self._stack: list[tuple[World, list[tuple[str, str]], tuple[str, ...]]] = []
        self._claims: set[Any] = set()
        self.states: set[Any] = set()
        self.ends: set[str] = set()
        """The outputs that were seen, and how workflows without one ended."""

    def explore(self) -> None:
        """Visit every state."""
        self._claim(self._lives(self._program))
        while self._stack:
            world, longest, path = self._stack.pop()
            lives = self._lives(self._program)
            lives.world, lives.longest = world.copied(), list(longest)
            life = lives.begin()
            for choice in path:
                lives.take(life, choice)
            state = (_durable(lives), _on_its_way(life), tuple(lives.seen.entries))
            if state in self.states:
                life.crash()
                continue
            self.states.add(state)
            assert len(self.states) < self._limit, "too many states"
            if not life.ended:
                choices = life.choices()
                assert choices, f"stuck: {lives.world.locations()}"
                self._stack.extend((world, longest, (*path, choice)) for choice in choices)
                life.crash()
            self._claim(lives)

    def _claim(self, lives: Lives) -> None:
        if lives.ended:
            if _durable(lives) not in self._claims:
                self._claims.add(_durable(lives))
                lives.check_end()
                self.ends.add(str(lives.world.output or lives.world.status))
            return
        if _durable(lives) not in self._claims:
            self._claims.add(_durable(lives))
            self._stack.append((lives.world.copied(), list(lives.longest), ()))


def _durable(lives: Lives) -> Any:
    world = lives.world
    rows = tuple(
        (key, e.status, e.seq, e.attempts, e.loop_progress, e.wake_at is not None and e.wake_at <= world.now)
        for key, e in sorted(world.events.items())
    )
    return rows, world.status, world.output, world.around(), tuple(lives.longest)


def _on_its_way(life: Incarnation) -> Any:
    writes = tuple(
        (tuple((row.location, row.status, row.seq) for row in write.rows), type(write.outcome)) for write in life.writes
    )
    timers = tuple(sorted(timer.when - life.now() for timer in life.timers if not timer.cancelled))
    return (
        life.ended,
        writes,
        tuple(life.choices()),
        tuple(call.label for call in life.calls),
        len(timers),
        life.around(),
    )
