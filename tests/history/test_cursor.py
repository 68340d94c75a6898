"""The cursor: code that was edited by the rules replays what it did; other code gets an error and consumes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow.errors import HistoryDiverged
from pgflow.history import location as loc
from pgflow.history.cursor import Cursor, Placement
from pgflow.history.events import (
    KIND_ACTIVITY,
    KIND_BRANCH,
    KIND_LISTEN,
    KIND_LOOP,
    KIND_REMOVED,
    KIND_SLEEP,
    KIND_TIMEOUT,
    KIND_VERSION_CHECK,
    NAMELESS,
    Event,
)
from tests.history.test_events import event

KINDS = [KIND_ACTIVITY, KIND_SLEEP, KIND_LOOP, KIND_BRANCH, KIND_LISTEN, KIND_TIMEOUT]


@dataclass(frozen=True)
class Call:
    """One step of a program; `number` tells calls of one kind and name apart."""

    kind: str
    name: str
    version: int
    number: int


calls = st.tuples(st.sampled_from(KINDS), st.sampled_from(["", "a", "b"]))
parents = st.sampled_from(["", "1", "2,a10", "3.1,b100.0.1"])


def made(step: Placement, call: Call) -> Event:
    return event(step.location, kind=call.kind, name=call.name, version=call.version, input=str(call.number))


def sorted_rows(rows: dict[str, Event]) -> list[Event]:
    return [rows[location] for location in sorted(rows)]


@given(st.data())
def test_edited_programs_replay_their_rows_and_insert_between_them(data: st.DataObject) -> None:
    parent = data.draw(parents)
    prefix = parent + "," if parent else ""
    rows: dict[str, Event] = {}
    program: list[Call] = []
    number = 0
    for version in range(1, data.draw(st.integers(1, 5)) + 1):
        for kind, name in data.draw(st.lists(calls, max_size=6)):
            number += 1
            position = len(program) if version == 1 else data.draw(st.integers(0, len(program)))
            program.insert(position, Call(kind, name, version, number))
        cursor = Cursor(parent, sorted_rows(rows))
        previous: loc.Coordinate = ()
        for call in program[: data.draw(st.integers(0, len(program)))]:  # the process dies anywhere
            ahead = cursor.remaining()
            step = cursor.step(call.kind, call.name, call.version)
            here = loc.decode_coordinate(step.location.removeprefix(prefix))
            assert previous < here
            previous = here
            known = {row.input: row for row in rows.values()}.get(str(call.number))
            if known is not None:
                assert step.event is known is ahead[0]
                assert cursor.remaining() == ahead[1:]
            else:
                assert step.event is None
                assert cursor.remaining() == ahead
                assert not ahead or step.location < ahead[0].location
                assert step.location not in rows
                rows[step.location] = made(step, call)
        assert cursor.exhausted == (not cursor.remaining())
    cursor = Cursor(parent, sorted_rows(rows))
    order = {call.number: i for i, call in enumerate(program)}
    positions = [order[int(row.input or "")] for row in sorted_rows(rows)]
    assert positions == sorted(positions), "rows sort as the code executes"


@given(st.lists(st.tuples(calls, st.integers(1, 3)), min_size=1, max_size=6), st.data())
def test_any_other_step_diverges_and_consumes_nothing(
    history: list[tuple[tuple[str, str], int]], data: st.DataObject
) -> None:
    rows = [
        event(str(i + 1), kind=kind, name=name, version=version) for i, ((kind, name), version) in enumerate(history)
    ]
    cursor = Cursor("", rows)
    for _ in range(data.draw(st.integers(0, len(rows) - 1))):
        row = cursor.remaining()[0]
        cursor.step(row.kind, row.name, row.version)
    found = cursor.remaining()
    kind, name = data.draw(calls)
    version = data.draw(st.integers(1, found[0].version))
    matches = (kind, version) == (found[0].kind, found[0].version) and (name == found[0].name or kind in NAMELESS)
    if not matches:
        with pytest.raises(HistoryDiverged) as caught:
            cursor.step(kind, name, version)
        assert caught.value.location == loc.display(found[0].location)
        assert caught.value.location in str(caught.value)
        expected = caught.value.expected
        assert expected is not None and caught.value.found is not None
        assert kind in expected and found[0].kind in caught.value.found
        assert cursor.remaining() == found
    row = found[0]
    assert cursor.step(row.kind, row.name, row.version) == Placement(row.location, row)


def test_a_thousand_steps_inserted_at_one_place_stay_in_order() -> None:
    rows = [event("1", name="a"), event("2", name="b")]
    cursor = Cursor("", rows)
    cursor.step(KIND_ACTIVITY, "a", 1)
    inserted = [cursor.step(KIND_ACTIVITY, "x", 2).location for _ in range(1000)]
    assert ["1", *inserted, "2"] == sorted(["1", *inserted, "2"])
    assert cursor.step(KIND_ACTIVITY, "b", 1).event is rows[1]


def test_a_version_check_is_recorded_once_and_answers_the_same_ever_after() -> None:
    cursor = Cursor("", [event("1", name="a")])
    cursor.step(KIND_ACTIVITY, "a", 1)
    assert cursor.check_version(3) == (3, "2")
    rows = [event("1", name="a"), event("2", kind=KIND_VERSION_CHECK, name="", version=3)]
    for version in (1, 3, 5):
        cursor = Cursor("", rows)
        cursor.step(KIND_ACTIVITY, "a", 1)
        assert cursor.check_version(version) == (3, None)
        assert cursor.exhausted


def test_a_version_check_before_older_steps_answers_their_version_and_writes_nothing() -> None:
    rows = [event("1", name="a")]
    cursor = Cursor("", rows)
    assert cursor.check_version(2) == (1, None)
    assert cursor.remaining() == rows
    assert cursor.step(KIND_ACTIVITY, "a", 1).event is rows[0]


@pytest.mark.parametrize("text", ['{"kind":"activity"}', '{ "kind" : "activity" }', '{"why": 1, "kind": "activity"}'])
def test_a_removed_step_is_passed_by_its_row_or_by_its_mark(text: str) -> None:
    mark = event("1", kind=KIND_REMOVED, name="a", input=text)
    for row in (event("1", name="a"), mark):
        cursor = Cursor("", [row])
        assert cursor.removed(KIND_ACTIVITY, "a") == Placement("1", row)
        assert cursor.exhausted
        assert cursor.removed(KIND_ACTIVITY, "a") == Placement("2", None), "recorded where history ends"


@pytest.mark.parametrize(
    "row",
    [
        event("1", name="b"),
        event("1", kind=KIND_REMOVED, name="a", input='{"kind":"child_workflow"}'),
        event("1", kind=KIND_REMOVED, name="b", input='{"kind":"activity"}'),
        event("1", kind=KIND_REMOVED, name="a", input='["activity"]'),
        event("1", kind=KIND_REMOVED, name="a", input="{"),
        event("1", kind=KIND_REMOVED, name="a", input=None),
    ],
)
def test_another_step_than_the_removed_one_diverges(row: Event) -> None:
    cursor = Cursor("", [row])
    with pytest.raises(HistoryDiverged, match="removed"):
        cursor.removed(KIND_ACTIVITY, "a")
    assert cursor.remaining() == [row]


def test_removed_kinds_without_a_name_match_whatever_they_were_called() -> None:
    row = event("1", kind=KIND_SLEEP, name="whatever")
    assert Cursor("", [row]).removed(KIND_SLEEP, "") == Placement("1", row)
