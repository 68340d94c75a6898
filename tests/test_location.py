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
def test_the_examples(previous: loc.Coordinate, following: loc.Coordinate, expected: loc.Coordinate) -> None:
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


DEPTH = 3000


@pytest.mark.parametrize(
    ("low", "high"), [((), (1,)), ((1,), (2,)), ((1, 1), (2,)), ((1,), (1, 0, 1)), ((7, 3, 1), (8,))]
)
@pytest.mark.parametrize("pattern", ["left", "right", "alternating"])
def test_chains_thousands_deep(low: loc.Coordinate, high: loc.Coordinate, pattern: str) -> None:
    """Every insertion is followed by another right before or after it."""
    for i in range(DEPTH):
        middle = loc.between(low, high)
        assert low < middle < high and middle[-1] != 0
        if i % 500 == 0:
            assert loc.encode_coordinate(low) < loc.encode_coordinate(middle) < loc.encode_coordinate(high) or not low
            assert loc.decode_coordinate(loc.encode_coordinate(middle)) == middle
        left = pattern == "left" or (pattern == "alternating" and i % 2 == 0)
        low, high = (low, middle) if left else (middle, high)


@given(st.lists(st.integers(0, 10**9), max_size=400))
def test_insertions_anywhere_keep_all_in_order(places: list[int]) -> None:
    """A list of steps grows by insertions between random neighbours; nobody ever moves."""
    steps: list[loc.Coordinate] = [(1,), (2,), (3,)]
    for place in places:
        at = place % (len(steps) + 1)
        previous = steps[at - 1] if at else ()
        if at == len(steps):
            steps.append((previous[0] + 1,) if previous else (1,))
        else:
            steps.insert(at, loc.between(previous, steps[at]))
    stored = [loc.encode_coordinate(step) for step in steps]
    assert stored == sorted(stored) and len(set(stored)) == len(stored)
    assert [loc.decode_coordinate(text) for text in stored] == steps


@given(coordinates, coordinates)
def test_between_takes_the_coordinate_that_the_rule_names(a: loc.Coordinate, b: loc.Coordinate) -> None:
    if a == b:
        return
    p, c = min(a, b), max(a, b)
    if c[: len(p)] == p:
        expected = next(candidate for zeros in range(len(c) + 1) if (candidate := (*p, *([0] * zeros), 1)) < c)
    elif len(p) > len(c):
        expected = (*p[:-1], p[-1] + 1)
    else:
        expected = (*p, 1)
    assert loc.between(p, c) == expected


@pytest.mark.parametrize("low", [(1,), (2,), (1, 1)])
def test_there_is_nothing_between_what_is_out_of_order(low: loc.Coordinate) -> None:
    with pytest.raises(ValueError, match="expected .* to come before"):
        loc.between(low, (1,))


@pytest.mark.parametrize(
    "text", ["", "a", "a1", "10", "1.", ".1", "1..2", "-1", "b10", "A10", "\u00e110", "\u0661", "1,2"]
)
def test_what_is_no_stored_coordinate(text: str) -> None:
    with pytest.raises(ValueError, match="no stored coordinate"):
        loc.decode_coordinate(text)


@given(locations, st.integers(0, 10_000), st.integers(0, 10_000), locations)
def test_turns_hold_just_the_rows_of_their_turns(
    loop: loc.Location, first: int, last: int, inside: loc.Location
) -> None:
    low, high = loc.turns(loc.encode(loop), first, last)
    for index in {first - 1, first, last - 1, last, last + 1} - {-1}:
        row = loc.encode((*loop, (index + 1,), *inside))
        assert (low <= row < high) == (first <= index < last)
        assert row.startswith(loc.turn(loc.encode(loop), index) + ",")


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
