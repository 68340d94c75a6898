"""dispatch(): workflows started by SQL, in the caller's transaction, as the clients start them."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from pgflow.model.commands import Dispatch
from pgflow.store.database.arrays import literal
from pgflow.store.database.channels import wake_channel
from pgflow.store.queries import dispatching
from pgflow.uuid7 import uuid7
from tests.schema.waits import Waits

Sql = psycopg.Connection[Any]


def one(sql: Sql, query: str, *values: Any) -> Any:
    """The only row; its value when it is a single one."""
    (found,) = sql.execute(query.encode(), values or None).fetchall()
    return found[0] if len(found) == 1 else found


def another(dsn: str) -> Sql:
    """A connection in whose transactions things stay open."""
    return psycopg.connect(dsn, options="-c search_path=pgflow")


def by_client(sql: Sql, name: str, tags: dict[str, Any], *, unique: bool = True, id: UUID | None = None) -> UUID | None:
    query = dispatching.dispatch("pgflow", [Dispatch(id or uuid7(), name, tags=json.dumps(tags), unique=unique)])
    (found,) = query.read(sql.execute(query.sql, query.params).fetchall())
    return found.id


def test_a_dispatched_workflow_is_pending_and_due(sql: Sql) -> None:
    id = one(sql, """SELECT dispatch('greet', '{"b": 1.10, "a": null}')""")
    assert id.version == 7
    query = (
        "SELECT name, status, queue, priority, tags, input::text, epoch, worker_id, wake_at <= now() FROM "
        "workflow_overview"
    )
    assert one(sql, query) == ("greet", "pending", "default", 0, {}, '{"b": 1.10, "a": null}', 0, None, True)
    assert one(sql, "SELECT id, w.status, unique_key FROM workflows AS w JOIN runs ON workflow_id = id") == (
        id,
        None,
        None,
    )


def test_all_that_can_be_said(sql: Sql) -> None:
    id, at = uuid4(), datetime.now(UTC) + timedelta(days=1)
    query = """SELECT dispatch('greet', id => %s, tags => '{"to": "me", "n": 1}', run_at => %s, priority => -3,
        queue => 'slow')"""
    assert one(sql, query, id, at) == id
    query = "SELECT id, tags, wake_at, priority, queue FROM workflow_overview"
    assert one(sql, query) == (id, {"to": "me", "n": 1}, at, -3, "slow")


def test_a_moment_that_has_passed_is_now(sql: Sql) -> None:
    """Else it would go before all that wait already."""
    for moment in ("2001-01-01", "-infinity"):
        id = one(sql, "SELECT dispatch('greet', run_at => %s::timestamptz)", moment)
        assert one(sql, "SELECT wake_at = created_at FROM workflow_overview WHERE id = %s", id)


def test_an_id_that_was_used_before(sql: Sql) -> None:
    """Starts nothing, also when that workflow has ended; of another name it is an error."""
    id = one(sql, """SELECT dispatch('greet', '{"n": 1}')""")
    assert one(sql, """SELECT dispatch('greet', '{"n": 2}', id => %s)""", id) == id
    sql.execute("DELETE FROM runs")
    assert one(sql, """SELECT dispatch('greet', '{"n": 3}', id => %s, is_unique => true)""", id) == id
    assert one(sql, "SELECT input::text FROM workflows") == '{"n": 1}'
    assert sql.execute("SELECT FROM runs").fetchall() == []
    with pytest.raises(
        psycopg.errors.UniqueViolation, match=f'the id {id} belongs to a workflow "greet", expected "part"'
    ):
        one(sql, "SELECT dispatch('part', id => %s)", id)


TAGS: list[dict[str, Any]] = [{}, {"b": 1, "a": "x"}, {"größe": "ä", "n": 1.50, "t": True, "z": None}]


@pytest.mark.parametrize("tags", TAGS)
def test_unique_for_clients_and_for_sql_is_the_same(sql: Sql, tags: dict[str, Any]) -> None:
    text = json.dumps(tags)
    first = one(sql, "SELECT dispatch('greet', tags => %s, is_unique => true)", text)
    assert one(sql, "SELECT dispatch('greet', tags => %s, is_unique => true)", text) == first
    assert by_client(sql, "greet", tags) == first
    assert one(sql, "SELECT dispatch('greet', tags => %s)", text) != first
    assert one(sql, "SELECT dispatch('other', tags => %s, is_unique => true)", text) != first
    second = by_client(sql, "third", tags)
    assert one(sql, "SELECT dispatch('third', tags => %s, is_unique => true)", text) == second
    sql.execute("UPDATE runs SET unique_key = NULL WHERE workflow_id = %s", [first])
    assert one(sql, "SELECT dispatch('greet', tags => %s, is_unique => true)", text) not in (first, None)


@pytest.mark.parametrize("first_by", ["sql", "client"])
@pytest.mark.parametrize("commits", [True, False])
def test_unique_races(dsn: str, sql: Sql, waits: Waits, first_by: str, commits: bool) -> None:
    """The second waits for the first, and takes its workflow, or starts its own when the first gives up."""
    query = "SELECT dispatch('greet', is_unique => true)"
    with another(dsn) as first:
        held = one(first, query) if first_by == "sql" else by_client(first, "greet", {})
        second = waits.blocked(sql, query)
        first.commit() if commits else first.rollback()
        (got,) = second.result(20)
    assert (got == held) is commits
    assert one(sql, "SELECT id FROM workflows JOIN runs ON workflow_id = id") == got


@pytest.mark.parametrize("first_by", ["sql", "client"])
@pytest.mark.parametrize("unique", [True, False])
def test_the_same_id_races(dsn: str, sql: Sql, waits: Waits, first_by: str, unique: bool) -> None:
    """A caller that asks again before its first answer came gets the same workflow."""
    id = uuid7()
    query = "SELECT dispatch('greet', id => %s, is_unique => %s)"
    with another(dsn) as first:
        if first_by == "sql":
            one(first, query, id, unique)
        else:
            by_client(first, "greet", {}, unique=unique, id=id)
        second = waits.blocked(sql, query, id, unique)
        first.commit()
        assert second.result(20) == (id,)
    assert one(sql, "SELECT count(*) FROM workflows JOIN runs ON workflow_id = id") == 1


@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_a_key_that_somebody_holds_for_longer_than_the_caller_waits(dsn: str, sql: Sql, limit: str) -> None:
    """The error says what was waited for; the caller's savepoint goes on."""
    query = "SELECT dispatch('greet', tags => '{\"n\": 1}', is_unique => true)"
    with another(dsn) as first, another(dsn) as second:
        one(first, query)
        second.execute(f"SET LOCAL {limit} = '300ms'".encode())
        with (
            pytest.raises(psycopg.errors.LockNotAvailable, match='a live workflow "greet" has the tags .*still open'),
            second.transaction(),
        ):
            one(second, query)
        second.execute(f"SET LOCAL {limit} = 0".encode())
        first.rollback()
        assert one(second, query) is not None


def test_it_belongs_to_the_callers_transaction(dsn: str, sql: Sql) -> None:
    with another(dsn) as caller:
        one(caller, "SELECT dispatch('greet')")
        caller.rollback()
    assert sql.execute("SELECT FROM workflows").fetchall() == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("NULL", "name is null, expected the name of a workflow"),
        ("''", "name is '', expected the name"),
        ("repeat('x', 201)", "1 to 200 printable characters"),
        ("E'a\\nb'", "1 to 200 printable characters"),
        ("'greet', NULL", "input is null, expected a JSON object"),
        ("'greet', '[1]'", "input is array, expected a JSON object"),
        ("'greet', '7'", "input is number, expected a JSON object"),
        ("'greet', '{'", "invalid input syntax for type json"),
        ("'greet', '{\"a\": \"\\u0000\"}'", "u0000"),
        ("'greet', '{\"a\": \"\\ud800\"}'", "surrogate"),
        ("'greet', json_build_object('a', repeat('x', 1048576))", "bytes of JSON, expected at most 1048576"),
        ("'greet', tags => '[]'", "tags are \\[\\], expected a flat JSON object"),
        ("'greet', tags => '\"x\"'", "expected a flat JSON object"),
        ("'greet', tags => '{\"a\": {}}'", "expected a flat JSON object"),
        ("'greet', tags => '{\"a\": [1]}'", "expected a flat JSON object"),
        (
            "'greet', tags => jsonb_build_object('a', repeat('x', 20000))",
            "tags are 2\\d+ bytes of JSON, expected at most 16384",
        ),
        ("'greet', queue => ''", "queue is '', expected the name of a queue"),
        ("'greet', queue => NULL", "queue is null, expected the name of a queue"),
        ("'greet', queue => repeat('q', 201)", "expected the name of a queue"),
        (
            "'greet', run_at => '10000-01-01Z'",
            "run_at is 10000-.*, expected a moment before the year 10000, or infinity",
        ),
    ],
)
def test_bad_input_starts_nothing(sql: Sql, call: str, said: str) -> None:
    with pytest.raises(psycopg.DataError, match=said):
        sql.execute(f"SELECT dispatch({call})".encode())
    assert sql.execute("SELECT FROM workflows").fetchall() == sql.execute("SELECT FROM runs").fetchall() == []


def test_the_limit_of_payloads_can_be_set(sql: Sql) -> None:
    sql.execute("SET pgflow.payload_limit = 10")
    with pytest.raises(psycopg.DataError, match="input is 18 bytes of JSON, expected at most 10"):
        sql.execute("""SELECT dispatch('greet', '{"to": "everyone"}')""")
    sql.execute("SET pgflow.payload_limit = 2000000")
    sql.execute("SELECT dispatch('greet', json_build_object('a', repeat('x', 1048576)))")


def test_the_callers_search_path_and_temporary_tables_do_not_matter(sql: Sql) -> None:
    sql.execute("CREATE SCHEMA evil")
    sql.execute("CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT '1999-01-01'::timestamptz $$")
    sql.execute("CREATE FUNCTION evil.json_typeof(json) RETURNS text LANGUAGE sql AS $$ SELECT 'object' $$")
    sql.execute("CREATE TEMPORARY TABLE runs (LIKE pgflow.runs INCLUDING ALL)")
    sql.execute("SET search_path = evil, pg_temp, pg_catalog")
    with pytest.raises(psycopg.DataError):
        sql.execute("SELECT pgflow.dispatch('greet', '[]')")
    id = one(sql, "SELECT pgflow.dispatch('greet')")
    assert one(sql, "SELECT wake_at > '2000-01-01' FROM pgflow.runs WHERE workflow_id = %s", id)
    assert sql.execute("SELECT FROM pg_temp.runs").fetchall() == []


def test_the_hint_comes_with_the_commit(dsn: str, sql: Sql) -> None:
    """Its payload is the queue; work that is not due yet, or was there already, needs none."""
    sql.execute(f"LISTEN {wake_channel('pgflow')}".encode())
    with another(dsn) as caller:
        one(caller, "SELECT dispatch('greet', queue => 'rolled back')")
        caller.rollback()
        one(caller, "SELECT dispatch('greet', queue => 'later', run_at => now() + interval '1 day')")
        id = one(caller, "SELECT dispatch('greet', queue => 'first')")
        caller.commit()
        one(caller, "SELECT dispatch('greet', queue => 'first', id => %s)", id)
        caller.commit()
        one(caller, "SELECT dispatch('greet', queue => 'last')")
        caller.commit()
    told = [notify.payload for notify in sql.notifies(timeout=20, stop_after=2)]
    assert told == ["first", "last"]


def test_without_the_right_to_notify(dsn: str, sql: Sql) -> None:
    """A hint is only a hint: the workflow starts all the same."""
    role = f"pgflow_test_{os.getpid()}_{time.monotonic_ns()}"
    sql.execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
    sql.execute(f"CREATE ROLE {role}".encode())
    try:
        sql.execute(f"GRANT USAGE ON SCHEMA pgflow TO {role}".encode())
        sql.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA pgflow TO {role}".encode())
        sql.execute(f"GRANT EXECUTE ON FUNCTION dispatch TO {role}".encode())
        with psycopg.connect(dsn, options=f"-c role={role} -c search_path=pgflow") as caller:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), caller.transaction():
                caller.execute("SELECT pg_notify('a', 'b')")
            id = one(caller, "SELECT dispatch('greet')")
        assert one(sql, "SELECT id FROM workflow_overview WHERE status = 'pending'") == id
    finally:
        sql.execute(f"DROP OWNED BY {role} CASCADE".encode())
        sql.execute(f"DROP ROLE {role}".encode())


def test_a_client_reads_nothing_that_it_does_not_ask_for(sql: Sql) -> None:
    """However young the tables' statistics are: not one of the workflows that are there already."""
    for number in range(5):
        query = dispatching.dispatch("pgflow", [Dispatch(uuid7(), "many") for _ in range(1000)])
        with sql.transaction():
            sql.execute(query.sql, query.params, prepare=True)
            read = one(
                sql, "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'workflows'"
            )
        assert read == 0, f"{read} rows of {number} thousand were read"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", ["", "a", None, "NULL", 'say "b"', "back\\slash", "{x,y}", " ", "\n", "é\x1f"]),
        ("text", ["same, twice", "same, twice"]),
        ("int", [1, -2, None]),
        ("bool", [True, False, True]),
        ("uuid", [UUID(int=1), None, UUID(int=2**128 - 1)]),
        ("timestamptz", [None, datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC)]),
        ("text", []),
    ],
)
def test_array_literals(sql: Sql, kind: str, values: list[Any]) -> None:
    assert one(sql, f"SELECT %s::{kind}[]", literal(values)) == values
