"""What must be true after a storm, however many workers died in it; read from the tables and from the
side table alone.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import Any

import psycopg

from pgflow.history.location import decode
from tests.kill.load import foretold, kept

TRANSACTIONAL = ("enter", "enter_blocking")

_ENDED = ("completed", "failed", "cancelled", "abandoned")


def violations(sql: psycopg.Connection[Any], *, late: bool = False) -> list[str]:
    """Everything that is wrong, one sentence each; empty when all is well.

    Args:
        late: whether a COMMIT may have reached the server long after its transaction began, which is when such an
            activity says it ended.
    """
    return [
        *_outcomes(sql),
        *_left_over(sql),
        *_crossings(sql),
        *_doubled_rows(sql),
        *_doubled_places(sql),
        *_holes(sql),
        *_attempts(sql, TRANSACTIONAL if late else ()),
        *_effects(sql),
    ]


def _all(sql: psycopg.Connection[Any], query: str) -> list[Any]:
    return sql.execute(query.encode()).fetchall()


def _outcomes(sql: psycopg.Connection[Any]) -> list[str]:
    """Every workflow ended, with the output that it has without a crash."""
    wrong = []
    for id, name, status, number, output, error in _all(
        sql, "SELECT id, name, status, (input->>'number')::int, output::text, error::text FROM pgflow.workflows"
    ):
        expected = str(foretold(name, number))
        if status != "completed" or output != expected:
            wrong.append(f"{name} {id} of {number}: expected {expected}, found {status} with {output or error}")
    return wrong


def _left_over(sql: psycopg.Connection[Any]) -> list[str]:
    """No run without an end, no step without an end, no worker that nobody has buried."""
    return [
        f"left over: {what} {row}"
        for what, query in (
            ("run", "SELECT workflow_id, status, worker_id FROM pgflow.runs"),
            (
                "pending step",
                "SELECT workflow_id, location, kind, status FROM pgflow.history WHERE status NOT IN "
                f"{_ENDED!r} ORDER BY workflow_id, location",
            ),
            ("worker", "SELECT id, expires_at FROM pgflow.workers"),
            ("signal", "SELECT id, workflow_id, number, dropped_at FROM pgflow.signals WHERE consumed_at IS NULL"),
            ("request", "SELECT id, workflow_id, kind FROM pgflow.requests"),
        )
        for row in _all(sql, query)
    ]


def _crossings(sql: psycopg.Connection[Any]) -> list[str]:
    """A parent has started each child once, and sent each signal once, however often it died doing so."""
    return [
        f"{id}: {children} children, {signals} signals"
        for id, children, signals in _all(
            sql,
            "SELECT w.id, count(DISTINCT c.id), count(s.id) FROM pgflow.workflows AS w LEFT JOIN pgflow.workflows AS "
            "c ON c.parent_id = w.id LEFT JOIN pgflow.signals AS s ON s.workflow_id = c.id WHERE w.name = 'family' "
            "GROUP BY w.id HAVING count(DISTINCT c.id) <> 2 OR count(s.id) <> 2",
        )
    ]


def _doubled_rows(sql: psycopg.Connection[Any]) -> list[str]:
    """A step is a row of active or of forgotten history, never of both."""
    query = "SELECT workflow_id, location, count(*) FROM pgflow.history GROUP BY 1, 2 HAVING count(*) > 1"
    return [f"{id} {location}: {count} rows" for id, location, count in _all(sql, query)]


def _doubled_places(sql: psycopg.Connection[Any]) -> list[str]:
    """No two results of the same turn, or outside of all turns, have the same place in the order of delivery.

    Places are counted on from active history: a turn may use those of turns that were forgotten before a crash again.
    """
    found: dict[Any, list[str]] = defaultdict(list)
    loops = {
        (id, decode(location))
        for id, location in _all(sql, "SELECT workflow_id, location FROM pgflow.history WHERE kind = 'loop'")
    }
    for id, location, seq in _all(
        sql,
        "SELECT workflow_id, location, seq FROM pgflow.history WHERE status IN ('completed', 'failed') AND seq IS NOT "
        "NULL",
    ):
        path = decode(location)
        turn = max((depth + 1 for depth in range(1, len(path)) if (id, path[:depth]) in loops), default=0)
        found[id, path[:turn], seq].append(location)
    return [
        f"{id}: {locations} share the place {seq}" for (id, _, seq), locations in found.items() if len(locations) > 1
    ]


def _holes(sql: psycopg.Connection[Any]) -> list[str]:
    """The steps of each branch are numbered without a gap; of a loop's turns, those are missing that are not kept."""
    rows: dict[Any, list[tuple[str, str, bool, int | None]]] = defaultdict(list)
    for id, number, *row in _all(
        sql,
        "SELECT workflow_id, (w.input->>'number')::int, location, kind, forgotten, loop_progress "
        "FROM pgflow.history JOIN pgflow.workflows AS w ON w.id = workflow_id",
    ):
        rows[id, number].append(tuple(row))
    wrong = []
    for (id, number), steps in rows.items():
        below: dict[Any, set[int]] = defaultdict(set)
        for location, *_ in steps:
            path = decode(location)
            for depth in range(len(path)):
                below[path[:depth]].add(path[depth][0])
        loops = {decode(location): (progress or 0) for location, kind, _, progress in steps if kind == "loop"}
        for place, numbers in below.items():
            last = loops.get(place, max(numbers))
            keep = kept(number) if len(place) == 1 else 100
            first = max(0, last - keep) + 1 if place in loops else 1
            if numbers != set(range(first, last + 1)):
                wrong.append(f"{id} {place}: expected steps {first} to {last}, found {sorted(numbers)}")
        for location, kind, forgotten, _ in steps:
            path = decode(location)
            inside = any(path[:depth] in loops for depth in range(1, len(path)))
            if forgotten != inside:
                wrong.append(
                    f"{id} {location} ({kind}): in {'forgotten' if forgotten else 'active'} history after the end"
                )
    return wrong


def _attempts(sql: psycopg.Connection[Any], unsure: tuple[str, ...]) -> list[str]:
    """No attempt began after its activity's end was recorded, and what is recorded was attempted.

    What a killed worker sent may reach its table late; it began before its death at the latest. A last attempt is
    recorded before it begins: a process that dies between the two has spent it. Activities of turns that are no longer
    kept cannot be looked up: those of the loops that keep all turns can.
    """
    wrong = []
    recorded = {
        uuid.uuid5(row[0], row[1]): row
        for row in _all(
            sql,
            "SELECT workflow_id, location, status, attempts, completed_at, error->>'type' = 'WorkerCrashed' "
            "FROM pgflow.history WHERE kind = 'activity'",
        )
    }
    attempted: dict[Any, int] = defaultdict(int)
    trimmed = {
        id
        for (id,) in _all(
            sql,
            "SELECT DISTINCT workflow_id FROM pgflow.history AS h JOIN pgflow.workflows AS w ON w.id = workflow_id "
            "WHERE w.name = 'looping' AND (w.input->>'number')::int % 2 = 1",
        )
    }
    for key, id, name, attempt, begun_at in _all(
        sql,
        "SELECT a.key, a.workflow_id, a.name, a.attempt, least(a.begun_at, k.killed_at) "
        "FROM attempts AS a LEFT JOIN kills AS k ON k.token = a.token",
    ):
        if key not in recorded:
            if id not in trimmed:
                wrong.append(f"{id}: attempt {attempt} of {name} has no row in history")
            continue
        _, location, status, attempts, completed_at, _ = recorded[key]
        attempted[key] = max(attempted[key], attempt)
        if name not in unsure and status in ("completed", "failed") and begun_at > completed_at:
            wrong.append(
                f"{id} {location}: attempt {attempt} of {name} began at {begun_at}, it was {status} at {completed_at}"
            )
    for key, (id, location, status, attempts, _, died) in recorded.items():
        spent = status == "failed" and died and attempted[key] == attempts - 1
        if status in ("completed", "failed") and attempted[key] != attempts and not spent:
            wrong.append(
                f"{id} {location}: {status} after {attempts} attempts, the last one that began is {attempted[key]}"
            )
    return wrong


def _effects(sql: psycopg.Connection[Any]) -> list[str]:
    """Each transactional activity that completed has left its effect and its state, once; no other has."""
    completed = {
        uuid.uuid5(id, location)
        for id, location in _all(
            sql,
            "SELECT workflow_id, location FROM pgflow.history "
            f"WHERE kind = 'activity' AND status = 'completed' AND name IN {TRANSACTIONAL!r}",
        )
    }
    left: dict[Any, int] = defaultdict(int)
    for (key,) in _all(sql, "SELECT key FROM effects"):
        left[key] += 1
    kept = {uuid.UUID(key) for (key,) in _all(sql, "SELECT json_object_keys(state) FROM pgflow.workflows")}
    return [
        *(f"{key}: {count} effects of one activity" for key, count in left.items() if count > 1),
        *(f"{key}: completed without its effect" for key in completed - left.keys()),
        *(f"{key}: an effect of an activity that did not complete" for key in left.keys() - completed),
        *(f"{key}: state and history differ" for key in kept ^ completed),
    ]
