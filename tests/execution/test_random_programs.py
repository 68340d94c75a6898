"""Random programs that crash at random: results reach their steps, none runs again, the code sees the same.

They take steps, branch, loop, start children and listen, while signals arrive at any moment; some are cancelled.
PGFLOW_PROGRAMS sets how many, and makes them different each time: run it like this after a change of the engine.
"""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.execution.elsewhere import live_a_while, packed
from tests.execution.program_trees import (
    TREES,
    CancelledTreeLives,
    Node,
    Ping,
    Pong,
    TreeLives,
    gives_the_same_in_any_order,
    program_of,
)

GIVEN = os.environ.get("PGFLOW_PROGRAMS")
PROGRAMS = int(GIVEN or "500")
COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": GIVEN is None,  # a change is held to the same programs each time; others are met where it is set
}


@settings(max_examples=PROGRAMS, **COMMON)
@given(TREES, st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 0.6]))
@example(  # the turns before the one that a loop goes on with are not behind
    (
        "seq",
        (
            ("timeout", 0.002, ("act",)),
            ("loop", 3, 3, ("semaphore", (("raise",), ("loop", 3, 1, ("hear", Ping, Pong))))),
        ),
    ),
    0,
    0.05,
)
@example(  # a step is begun after its cancellation was recorded, and before the code hears of it
    ("timeout", 0.002, ("lock", (("first", (("act",), ("act",))), ("hear", Ping)))),
    0,
    0.05,
)
@example(  # the code cancels a task that waits for the end of a loop, at the place where the last turn began
    ("first and cancel", (("version",), ("seq", (("loop", 1, 1, ("version",)), ("raise",))))),
    0,
    0.05,
)
def test_random_programs(tree: Node, seed: int, crash: float) -> None:
    crashing = TreeLives(program_of(tree))
    crashing.live(random.Random(seed), crash)
    crashing.check_end()
    steady = TreeLives(program_of(tree))
    steady.live(random.Random(seed), crash=0)
    steady.check_end()
    if gives_the_same_in_any_order(tree):
        assert crashing.world.output == steady.world.output


@settings(max_examples=PROGRAMS // 2, **COMMON)
@given(TREES, st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3, 0.6]))
@example(
    ("first", (("sleep", 0.3), ("loop", 2, 1, ("first", (("act",), ("sleep", 0.002)))))), 29, 0.0
)  # a turn begins as the code ends
@example(  # what the code has left behind calls a step whose result history has
    (
        "first",
        (("raise",), ("timeout", 0.002, ("hear", Ping)), ("seq", (("first", (("act",), ("raise",))), ("sleep", 0)))),
    ),
    0,
    0.3,
)
def test_random_programs_that_somebody_cancels(tree: Node, seed: int, crash: float) -> None:
    cancelled = CancelledTreeLives(program_of(tree))
    cancelled.live(random.Random(seed), crash)
    cancelled.check_end()


def test_random_programs_that_go_on_in_another_process(tmp_path: Path) -> None:
    """Killed at any place, and replayed where texts have other hashes and objects other addresses."""
    begun: list[bytes] = []

    @settings(max_examples=PROGRAMS // 5, **COMMON)
    @given(TREES, st.integers(0, 2**32), st.sampled_from([TreeLives, CancelledTreeLives]))
    def begin(tree: Node, seed: int, kind: type[TreeLives]) -> None:
        lives = kind(program_of(tree))
        live_a_while(lives, random.Random(seed))
        begun.append(packed(lives, tree, seed))

    begin()
    file = tmp_path / "begun"
    file.write_bytes(pickle.dumps(begun))
    command = [sys.executable, "-m", "tests.execution.elsewhere", str(file)]
    for hashes in ("1", "2"):
        ended = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr[-4000:]
