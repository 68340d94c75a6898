"""Locations: always room between neighbours, stored text in execution order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow.history import location as loc

coordinates = st.lists(st.integers(0, 2000), max_size=4).flatmap(
    lambda head: st.integers(1, 2000).map(lambda tail: (*head, tail))
)
locations = st.lists(coordinates, min_size=1, max_size=4).map(tuple)


@pytest.mark.parametrize(
    ("previous", "following", "expected"),
    [
        ((1,), (2,), (1, 1)),
        ((1, 1), (2,), (1, 2)),
        ((1, 1), (1, 2), (1, 1, 1)),
        ((1,), (1, 1), (1, 0, 1)),
        ((1,), (1, 0, 1), (1, 0, 0, 1)),
        ((), (1,), (0, 1)),
        ((), (0, 1), (0, 0, 1)),
    ],
)
def test_the_examples(
    previous: loc.Coordinate, following: loc.Coordinate, expected: loc.Coordinate
) -> None:
    assert loc.between(previous, following) == expected


@given(coordinates, coordinates)
def test_between_is_strictly_between(a: loc.Coordinate, b: loc.Coordinate) -> None:
    if a == b:
        return
    low, high = min(a, b), max(a, b)
    middle = loc.between(low, high)
    assert low < middle < high and middle[-1] != 0


@given(st.lists(st.booleans(), max_size=300))
def test_chains_of_insertions(left: list[bool]) -> None:
    low: loc.Coordinate = ()
    high: loc.Coordinate = (1,)
    for go_left in left:
        middle = loc.between(low, high)
        assert low < middle < high
        low, high = (low, middle) if go_left else (middle, high)


@given(locations, locations)
def test_stored_form_sorts_as_execution_order(a: loc.Location, b: loc.Location) -> None:
    assert (loc.encode(a) < loc.encode(b)) == (a < b)


@given(locations)
def test_round_trips(a: loc.Location) -> None:
    assert loc.decode(loc.encode(a)) == a
    assert loc.parse_displayed(loc.display(a)) == a


@given(locations, locations)
def test_subtree_holds_just_the_descendants(a: loc.Location, b: loc.Location) -> None:
    low, high = loc.subtree(loc.encode(a))
    assert (low <= loc.encode(b) < high) == (len(b) > len(a) and b[: len(a)] == a)
