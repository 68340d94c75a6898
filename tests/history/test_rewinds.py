"""Which rewinds cover a location: what ids are made from."""

from __future__ import annotations

from uuid import UUID

import pytest

from pgflow.history.identity import crossing_id
from pgflow.history.rewinds import numbered


@pytest.mark.parametrize(
    ("rewinds", "covered", "not_covered"),
    [
        ((), (), ("1", "2,1", "a10")),
        (("2",), ("2", "2,1", "2.1", "3", "a10", "9,9"), ("1", "1,1", "1.1", "1,a10")),
        (("2,3",), ("2,3", "2,3,1", "2,4", "2,a10", "3"), ("1", "2", "2,1", "2,2,5")),
        (("3 =1",), ("1", "1,1", "1,a10,2", "3"), ("1.1", "2", "2,1")),
        (("3 =1,2",), ("1,2", "1,2,7"), ("1", "1,1", "1,3", "1,2.1")),
        (("3 +1,2:1,4",), ("1,2", "1,2.1", "1,3", "1,4", "1,4,9"), ("1", "1,1", "1,4.1", "1,5", "2")),
        (("3 +1,2:",), ("1,2", "1,5", "1,a10", "1,2,3"), ("1", "1,1", "1,1,9", "1.1", "2")),
        (("3 +1:2",), ("1", "1,5", "1.1", "2", "2,9"), ("2.1",)),
    ],
)
def test_what_is_covered(rewinds: tuple[str, ...], covered: tuple[str, ...], not_covered: tuple[str, ...]) -> None:
    assert [numbered(location, rewinds) for location in covered] == [f"{location}@1" for location in covered]
    assert [numbered(location, rewinds) for location in not_covered] == list(not_covered)


def test_the_last_rewind_counts() -> None:
    rewinds = ("2", "4", "3 =1")
    assert [numbered(location, rewinds) for location in ("1", "2", "3", "4", "5,1")] == [
        "1@3",
        "2@1",
        "3@3",
        "4@3",
        "5,1@3",
    ]


def test_ids_of_before_stay() -> None:
    """Of a step that no rewind undid they are what they have always been; with a number they are others."""
    workflow = UUID("0198c0de-0000-7000-8000-000000000000")
    plain = crossing_id(workflow, numbered("3", ("4",)), "child_workflow", "child")
    assert plain == crossing_id(workflow, "3", "child_workflow", "child")
    others = {crossing_id(workflow, numbered("3", ("1",) * count), "child_workflow", "child") for count in (1, 2, 3)}
    assert len(others | {plain}) == 4
