"""In whatever order things complete, and wherever the process dies, the code sees again what it has seen.

Small programs are taken through every state that they can reach, with a crash in each; larger ones through hundreds of
random lives. `lives.py` says what is checked after every event.
"""

from __future__ import annotations

import random

import pytest

from tests.execution.exploring import Explorer
from tests.execution.lives import Lives
from tests.execution.programs import PROGRAMS
from tests.execution.small_programs import SMALL

EXPLORED = SMALL | {
    name: PROGRAMS[name]
    for name in ("gathered", "joined", "task_group", "first_of", "as_they_come", "timed", "long_timed")
}


@pytest.mark.parametrize("name", EXPLORED)
def test_every_subset_and_every_order_of_completions_with_any_number_of_crashes(name: str) -> None:
    explorer = Explorer(EXPLORED[name])
    explorer.explore()
    assert len(explorer.states) > 5 and explorer.ends


@pytest.mark.parametrize("name", PROGRAMS)
def test_random_lives(name: str) -> None:
    for seed in range(40):
        rng = random.Random(seed)
        lives = Lives(PROGRAMS[name])
        lives.live(rng, crash=rng.choice((0.0, 0.05, 0.3, 0.6)))
        lives.check_end()
