"""Random programs that crash at random: results reach their steps, none runs again, the code sees the same.

PGFLOW_PROGRAMS sets how many.
"""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.execution.lives import Lives
from tests.execution.program_trees import TREES, Node, gives_the_same_in_any_order, program_of

PROGRAMS = int(os.environ.get("PGFLOW_PROGRAMS", "500"))


@settings(max_examples=PROGRAMS, deadline=None, suppress_health_check=list(HealthCheck))
@given(TREES, st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 0.6]))
def test_random_programs(tree: Node, seed: int, crash: float) -> None:
    crashing = Lives(program_of(tree))
    crashing.live(random.Random(seed), crash)
    crashing.check_end()
    steady = Lives(program_of(tree))
    steady.live(random.Random(seed), crash=0)
    steady.check_end()
    if gives_the_same_in_any_order(tree):
        assert crashing.world.output == steady.world.output
