"""display_location() says what Python says, uuid7() grows with time, and stored locations sort as execution goes."""

from __future__ import annotations

from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgflow.history.location import Location, display, encode

ordinates = st.integers(0, 12) | st.integers(0, 10**12)
locations: st.SearchStrategy[Location] = st.lists(
    st.lists(ordinates, min_size=1, max_size=4).map(tuple), min_size=1, max_size=5
).map(tuple)
on_one_database = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)


@on_one_database
@given(asked=st.lists(locations, min_size=1, max_size=50))
def test_display_location(sql: psycopg.Connection[Any], asked: list[Location]) -> None:
    stored = [encode(location) for location in asked]
    query = "SELECT display_location(stored) FROM unnest(%s::text[]) WITH ORDINALITY AS u (stored, n) ORDER BY n"
    assert [shown for (shown,) in sql.execute(query, [stored])] == [display(location) for location in asked]


def test_display_location_of_the_example(sql: psycopg.Connection[Any]) -> None:
    assert sql.execute("SELECT display_location('2,a10.1'), display_location(NULL)").fetchone() == ("{2, 10.1}", None)


@on_one_database
@given(asked=st.lists(locations, min_size=1, max_size=50, unique=True))
def test_history_sorts_by_location_as_execution_goes(sql: psycopg.Connection[Any], asked: list[Location]) -> None:
    """The column's collation decides, whatever the database's is."""
    with sql.transaction(force_rollback=True):
        query = (
            "INSERT INTO events (workflow_id, location, kind, status) "
            "SELECT uuid_nil, stored, 'activity', 'completed' "
            "FROM unnest(%s::text[]) AS stored, (VALUES ('00000000-0000-0000-0000-000000000000'::uuid)) AS v (uuid_nil)"
        )
        sql.execute(query, [[encode(location) for location in asked]])
        found = [at for (at,) in sql.execute("SELECT at FROM history ORDER BY location")]
    assert found == [display(location) for location in sorted(asked)]


def test_uuid7(sql: psycopg.Connection[Any]) -> None:
    """Version 7, the time in milliseconds, and random enough."""
    query = "SELECT uuid7(), extract(epoch FROM clock_timestamp()) FROM generate_series(1, 1000)"
    made = sql.execute(query).fetchall()
    assert len({id for id, _ in made}) == 1000
    last = 0.0
    for id, now in made:
        assert (id.version, id.variant) == (7, "specified in RFC 4122")
        assert last - 0.001 <= (id.int >> 80) / 1000 <= float(now) + 0.001
        last = (id.int >> 80) / 1000


def test_functions_can_be_used_where_indexes_and_parallel_plans_want_them(sql: psycopg.Connection[Any]) -> None:
    """And none of them looks up names where its caller does."""
    query = (
        "SELECT proname, provolatile, proparallel, proconfig FROM pg_proc WHERE pronamespace = 'pgflow'::regnamespace"
    )
    found = {name: rest for name, *rest in sql.execute(query)}
    pinned = ["search_path=pg_catalog, pg_temp"]
    assert found["display_location"] == ["i", "s", pinned]
    # A plan that was made while a table was empty would read all of it later.
    often = {"record_ends", "record_failure", "forget_ends", "note_finders", "may_await", "remove_workflows", "prune"}
    assert {name for name in often if found[name][2] != [*pinned, "enable_seqscan=off"]} == set()
    assert {name for name, (_, _, config) in found.items() if config != pinned} == often
