"""Children and signals, in any order of events, wherever the process dies or somebody cancels: what the code has seen
it sees again, each child is started once, no end of a child is missed, and each signal is taken once and in order.

Small programs are taken through every state that they can reach, larger ones through random lives.
"""

from __future__ import annotations

import pytest

from tests.execution.cancel_programs import CAUGHT, LISTENING, OTHERS
from tests.execution.exploring import Explorer
from tests.execution.neighbour_programs import CANCELLED, HEARING, LARGE, SMALL
from tests.execution.neighbours import CancelledLives, NeighbourLives, random_life


class HelloLives(NeighbourLives):
    """Somebody may say hello, twice."""

    letters = ("hello", "hello")


class CancelledHelloLives(CancelledLives):
    """Somebody may say hello, and somebody may ask for a cancellation."""

    letters = ("hello",)


@pytest.mark.parametrize("name", SMALL)
def test_every_order_with_any_number_of_crashes(name: str) -> None:
    explorer = Explorer(SMALL[name], lives=NeighbourLives)
    explorer.explore()
    assert len(explorer.states) > 5 and explorer.ends


@pytest.mark.parametrize("name", HEARING)
def test_signals_at_any_moment(name: str) -> None:
    explorer = Explorer(HEARING[name], lives=HelloLives)
    explorer.explore()
    assert len(explorer.states) > 5 and explorer.ends


@pytest.mark.parametrize("name", CANCELLED)
def test_a_cancellation_at_any_moment(name: str) -> None:
    explorer = Explorer(CANCELLED[name], lives=CancelledLives)
    explorer.explore()
    assert len(explorer.states) > 5 and explorer.ends


@pytest.mark.parametrize("name", LISTENING | OTHERS)
def test_compensation_with_a_crash_at_every_point_of_it(name: str) -> None:
    lives = CancelledHelloLives if name in LISTENING else CancelledLives
    explorer = Explorer((LISTENING | OTHERS)[name], lives=lives)
    explorer.explore()
    ends = {"cancelled"} if name.endswith("raises") else {'"compensated"'}
    assert explorer.ends == ends | {'"in full"'}


@pytest.mark.parametrize("name", CAUGHT)
def test_turns_that_catch_a_cancellation_and_go_on(name: str) -> None:
    explorer = Explorer(CAUGHT[name], lives=CancelledLives)
    explorer.explore()
    around = {"cancelled"} if name.endswith("raises") else {'"compensated"'}
    assert explorer.ends == {'"in full"'} | (around if "beside" in name else set())


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("lives", [NeighbourLives, CancelledLives])
def test_random_lives(name: str, lives: type[NeighbourLives]) -> None:
    for seed in range(40 if name in SMALL else 8):
        random_life(LARGE[name], lives, seed)
