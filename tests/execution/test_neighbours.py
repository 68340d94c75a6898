"""Children and signals in whatever order things happen, and wherever the process dies or somebody cancels: what the code has seen it
sees again, each child is started once, and no end of a child is missed.

Small programs are taken through every state that they can come to, larger ones through random lives.
"""

from __future__ import annotations

import pytest

from tests.execution.exploring import Explorer
from tests.execution.neighbour_programs import CANCELLED, LARGE, SMALL
from tests.execution.neighbours import CancelledLives, NeighbourLives, random_life


@pytest.mark.parametrize("name", SMALL)
def test_every_order_with_any_number_of_crashes(name: str) -> None:
    explorer = Explorer(SMALL[name], lives=NeighbourLives)
    explorer.explore()
    assert len(explorer.states) > 5 and explorer.ends


@pytest.mark.parametrize("name", CANCELLED)
def test_a_cancellation_at_any_moment(name: str) -> None:
    explorer = Explorer(CANCELLED[name], lives=CancelledLives)
    explorer.explore()
    assert len(explorer.states) > 5 and explorer.ends


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("lives", [NeighbourLives, CancelledLives])
def test_random_lives(name: str, lives: type[NeighbourLives]) -> None:
    for seed in range(40 if name in SMALL else 8):
        random_life(LARGE[name], lives, seed)
