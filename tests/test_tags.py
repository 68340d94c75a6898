"""Tags agree with PostgreSQL on what contains what. About 3 seconds."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import pgflow
from pgflow.definitions.tags import tag_set, tags_text

_names = st.sampled_from(["a", "b", "ä", "A", ""])
_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([1.0, -0.0, 0.1, 1e23, 1e-7, 2.5, 10**23, 2**70, True]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["1", "true", "", "ä", '"', "\n"]),
)
_tags = st.dictionaries(_names, _values, max_size=4)


@pytest.fixture
def connection(server_dsn: str) -> Any:
    with psycopg.connect(server_dsn) as connection:
        yield connection


@given(_tags, _tags, st.booleans())
@example({"a": 1e23}, {"a": 10**23}, False)
@example({"a": 1}, {"a": True}, False)
@example({"a": 0}, {"a": -0.0}, False)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_containment_is_what_the_database_says(
    connection: psycopg.Connection[Any], one: dict[str, Any], other: dict[str, Any], whole: bool
) -> None:
    """Whether written by Python or read back from a `jsonb` column."""
    if whole:
        one = {**other, **one}
    row = connection.execute(
        "SELECT one @> other, one::text, other::text FROM (SELECT %s::jsonb AS one, %s::jsonb AS other) AS given",
        [tags_text(one), tags_text(other)],
    ).fetchone()
    assert row is not None
    contained, *stored = row
    ways = [(tags_text(one), tags_text(other)), (stored[0], tags_text(other)), (tags_text(one), stored[1])]
    assert [tag_set(wanted) <= tag_set(given) for given, wanted in ways] == [contained] * 3


def test_what_is_no_tags() -> None:
    for text in ("[]", "7", '{"a": []}', '{"a": {"b": 1}}', "{"):
        with pytest.raises(ValueError):
            tag_set(text)
    with pytest.raises(ValueError, match="not flat"):
        tags_text({"a": [1]})
    with pytest.raises(pgflow.SerializationError, match="tags are 109 bytes of JSON; expected at most 100"):
        tags_text({"name": "x" * 98}, limit=100)
