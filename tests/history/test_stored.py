"""The JSON document of a stored history: nothing is lost on the way, and anything else gets an error that says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow.history.events import Event
from pgflow.history.stored import StoredHistory

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

payloads = st.none() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=3,
).flatmap(
    lambda value: st.sampled_from([json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))])
)
moments = st.datetimes(timezones=st.just(UTC))
events = st.builds(
    Event,
    location=st.sampled_from(["1", "2,a10", "2.1", "0.1"]),
    iteration=st.integers(0, 99),
    seq=st.none() | st.integers(1, 99),
    version=st.integers(1, 9),
    kind=st.sampled_from(["activity", "loop", "removed"]),
    name=st.text(),
    status=st.sampled_from(["pending", "completed"]),
    attempts=st.integers(0, 9),
    at=moments,
    input=payloads,
    output=payloads,
    error=payloads,
    wake_at=st.none() | moments,
    turn_state=payloads,
    turn_now=st.none() | moments,
    loop_progress=st.none() | st.integers(0, 99),
    loop_state=payloads,
)


def history(events: list[Event], **values: Any) -> StoredHistory:
    given: dict[str, Any] = {
        "id": UUID(int=1),
        "name": "checkout",
        "status": "sleeping",
        "input": "{}",
        "tags": {"customer": 7},
        "seed": UUID(int=2),
        "created_at": NOW,
        "parent_id": None,
        "output": None,
        "error": None,
        "now": NOW,
    }
    return StoredHistory(**(given | values), events=events)


@settings(max_examples=40, deadline=None)
@given(st.lists(events, unique_by=lambda event: event.location, max_size=3), payloads)
def test_a_document_gives_back_what_went_in(found: list[Event], output: str | None) -> None:
    before = history(sorted(found, key=lambda event: event.location), output=output, parent_id=UUID(int=3))
    text = before.to_json()
    assert StoredHistory.from_json(text) == before
    assert StoredHistory.from_json(json.dumps(json.loads(text))) == before, "formatted anew"


@pytest.mark.parametrize("text", ["1.10", '{"a" : 1}', '{"a":1,"a":2}', "1" * 5000, '"\\u00e4"', "1E400", "-0"])
def test_texts_that_a_value_would_not_keep(text: str) -> None:
    before = history([], input=text)
    assert "input_text" in before.to_json()
    assert StoredHistory.from_json(before.to_json()) == before


def test_payloads_are_values_to_read_in_a_diff() -> None:
    document = json.loads(history([], input='{"größe":[1,2.5,null]}').to_json())
    assert document["workflow"]["input"] == {"größe": [1, 2.5, None]}


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("", "found no JSON"),
        ("[]", "without a format"),
        ("{}", "without a format"),
        ('{"pgflow_history": 99}', "found format 99"),
        ('{"pgflow_history": 1}', "damaged.*workflow"),
    ],
)
def test_what_is_no_history_is_told_so(document: str, found: str) -> None:
    with pytest.raises(ValueError, match=f"(?s)pgflow workflow export.*{found}|{found}"):
        StoredHistory.from_json(document)


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("workflow", "id", "seven"),
        ("workflow", "now", None),
        ("workflow", "created_at", "2030-01-01T00:00:00"),
        ("event", "kind", None),
        ("event", "at", "yesterday"),
    ],
)
def test_a_damaged_one_is_told_so(where: str, name: str, value: Any) -> None:
    row = Event("1", 0, 1, 1, "activity", "a", "completed", 1, NOW, None, "1", None, None, None, None, None, None)
    document = json.loads(history([row]).to_json())
    (document["workflow"] if where == "workflow" else document["events"][0])[name] = value
    with pytest.raises(ValueError, match="damaged.*pgflow workflow export"):
        StoredHistory.from_json(document)
