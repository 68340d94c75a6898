"""The index over a workflow's rows: which rows stand on which branch, and which turn of a loop is the last."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgflow.history import location as loc
from pgflow.history.events import KIND_ACTIVITY, Event, HistoryIndex

AT = datetime(2026, 1, 1, tzinfo=UTC)


def event(location: str, **values: Any) -> Event:
    """A completed activity's row."""
    made = Event(
        location, 0, None, 1, KIND_ACTIVITY, "work", "completed", 1, AT, None, "1", None, None, None, None, None, None
    )
    return made._replace(**values)


coordinates = st.lists(st.integers(0, 200), max_size=2).flatmap(
    lambda head: st.integers(1, 200).map(lambda tail: (*head, tail))
)
locations = st.lists(coordinates, min_size=1, max_size=4).map(tuple)


@given(st.sets(locations, max_size=40))
def test_every_row_is_a_child_of_just_its_branch(where: set[loc.Location]) -> None:
    stored = sorted(map(loc.encode, where))
    index = HistoryIndex(map(event, stored))
    parents = {loc.encode(at[:-1]) for at in where}
    seen = []
    for parent in parents:
        children = [row.location for row in index.children(parent)]
        assert children == [s for s in stored if loc.encode(loc.decode(s)[:-1]) == parent]
        seen += children
    assert sorted(seen) == stored
    assert index.children("999") == []


@given(st.sets(locations, max_size=40), coordinates)
def test_the_last_turn_is_the_greatest_that_has_a_row(where: set[loc.Location], loop: loc.Coordinate) -> None:
    under = {(loop, *at) for at in where}
    index = HistoryIndex(map(event, sorted(map(loc.encode, under | where))))
    expected = [at[1][0] - 1 for at in under | where if len(at) > 2 and at[0] == loop]
    assert index.last_turn(loc.encode((loop,))) == max(expected, default=None)


def test_a_turn_starts_with_the_row_that_carries_its_state() -> None:
    rows = [
        event("2", kind="loop"),
        event(loc.turn("2", 9) + ",0.1"),
        event(loc.turn("2", 9) + ",1", turn_state='{"n":9}', turn_now=AT),
        event(loc.turn("2", 9) + ",2", seq=7),
        event(loc.turn("2", 10) + ",1,1", turn_state="null", seq=3),
    ]
    index = HistoryIndex(rows)
    assert index.turn_start("2", 9) == rows[2]
    assert index.turn_start("2", 10) is None, "the row of a nested step is not the turn's own"
    assert index.turn_start("2", 8) is None
    assert index.last_turn("2") == 10
    assert index.last_turn("1") is None
    assert index.max_seq == 7


def test_an_empty_history() -> None:
    index = HistoryIndex([])
    assert (index.children(""), index.max_seq, index.last_turn("1")) == ([], 0, None)
