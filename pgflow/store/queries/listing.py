"""Lists and counts of workflows: statements whose work is bounded, however many workflows there are.

Rows are looked at one by one, in the order of the list, until there are enough, and at most `SCAN` of them: then the
page is short, and its cursor goes on from the last that was looked at. Where to look is decided by what is asked for:

    parent, name, nothing                  an index of `workflows`, in the list's order
    cancelled, paused, failed, error,      an index of `ends` or `runs` in which only such workflows are, in the list's
    a signal waited for                    order
    pending, running, sleeping             all of them, by the indexes of claims, and sorted, if they are few; else that
                                           of `workflows`. So it is with what is completed, and with a queue
    a tag, a time of the end               all of them, and sorted, if they are few; else that of `workflows`

An index for each of these would cost every workflow more than its end does. `FEW` is what can be collected and sorted
within a few milliseconds; whether so many have a tag is estimated from some pages of the table.

`ends` and the columns of `runs` that lists go by are complete once the chore `ends` is done. Until then only the
indexes of `workflows` are used: right, and slower.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pgflow.history.rewinds import REWOUND
from pgflow.model.info import Count, Page
from pgflow.store.database.connections import quoted, statement
from pgflow.store.database.query import Query
from pgflow.store.queries.inspection import infos_of

SCAN = 12_000
"""The most rows that are looked at for one page, unless it is to have more: a range of ten thousand is gone through in
one, and so are the first ten thousand of what nearly all are.
"""

FEW = 20_000
"""The most workflows that are collected and sorted, rather than met on the way."""

SAMPLE = 300
"""Pages of the table by which it is estimated how many workflows have a tag."""

ENDED = ("completed", "cancelled")

_READY = "(SELECT NOT EXISTS (SELECT FROM {schema}.chores AS c WHERE c.name = 'ends'))"
"""Whether everything is entered in `ends`."""

_SMALL = f"pg_relation_size('{{text}}.ends'::regclass) <= {200 * FEW}"
"""Whether there may be so few rows in `ends` that they can be collected."""

_PAGES = "(pg_relation_size('{text}.workflows'::regclass) / current_setting('block_size')::float8)"
_OF_WORKFLOWS = "w.created_at, w.id, w.name, w.status, w.tags, w.completed_at, w.parent_id, w.error"
_WORKFLOW = (
    f"CROSS JOIN LATERAL (SELECT {_OF_WORKFLOWS} FROM {{schema}}.workflows AS w WHERE w.id = s.id OFFSET 0) AS w"
)
_RUN = (
    "LEFT JOIN LATERAL (SELECT o.* FROM {schema}.runs AS o WHERE o.workflow_id = w.id "
    "AND (w.status IS NULL OR w.status = 'failed') OFFSET 0) AS r ON true"
)
_END = (
    "LEFT JOIN LATERAL (SELECT o.queue FROM {schema}.ends AS o WHERE w.status IN ('completed', 'cancelled') "
    "AND o.ended_at = coalesce(w.completed_at, w.created_at) AND o.workflow_id = w.id OFFSET 0) AS e ON true"
)
_COMPLETED = (
    "SELECT e.created_at, e.workflow_id AS id, e.name, e.queue, e.status FROM {schema}.ends AS e "
    f"WHERE {_SMALL} ORDER BY e.ended_at, e.workflow_id"
)
_OF_RUNS = "r.created_at, r.workflow_id AS id, r.name, r.queue, r.status"
_CLAIMABLE = "r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL"
_BY_CLAIM = "r.queue, r.name, r.priority DESC, r.wake_at"
_LISTENS = "r.status IN ('sleeping', 'paused') AND r.waiting_for IS NOT NULL"
"""Each as the index of `runs` says it, so that its plan is that index."""

_FAILED_OF = "coalesce(r.error_type, {schema}.error_type(w.error)) = %(error_type)s::text"


class Asked(NamedTuple):
    """What workflows are asked for; None: any.

    Attributes:
        statuses: one of these.
        tags: JSON of an object that the workflow's tags contain.
        created_after, ended_after: at this moment or later; `_before`: before it.
        error_type: failed with an error of this type.
        waiting_for: waits for a signal of this name.
        after: only those after this place in the list: the last workflow's time of dispatch, if known, and its id.
    """

    name: str | None = None
    statuses: Sequence[str] | None = None
    tags: str | None = None
    queue: str | None = None
    parent_id: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    ended_after: datetime | None = None
    ended_before: datetime | None = None
    error_type: str | None = None
    waiting_for: str | None = None
    after: tuple[datetime | None, UUID] | None = None


class _Way(NamedTuple):
    """A way to find workflows.

    Attributes:
        source: a SELECT of `created_at` and `id` in the list's order, unbounded; of workflows if `whole`, with
            the columns that conditions are about.
        filters: the names of the filters that it has heeded.
    """

    source: str
    filters: frozenset[str]
    whole: bool = False


def find(schema: str, asked: Asked, limit: int) -> Query[Page]:
    """The statement that lists workflows, the youngest first, at most so many."""
    text, given = _made("inspect_list", schema, asked, limit)
    return Query(text, given, lambda rows: _page(rows, limit))


def count(schema: str, asked: Asked, limit: int) -> Query[Count]:
    """The statement that counts workflows, up to so many."""
    text, given = _made("inspect_count", schema, asked, limit)
    return Query(text, given, _counted)


def _page(rows: Sequence[tuple[Any, ...]], limit: int) -> Page:
    found = infos_of([row[:15] for row in rows if row[0] is not None])
    at, id = rows[0][15:17] if rows else (None, None)
    return Page(found, limit, None if id is None else (at, id))


def _counted(rows: Sequence[tuple[Any, ...]]) -> Count:
    ((number, at, id),) = rows
    return Count(number, None if id is None else (at, id))


def _made(name: str, schema: str, asked: Asked, limit: int) -> tuple[bytes, dict[str, Any]]:
    given = _given(asked)
    wanted = frozenset(_filters(asked))
    decisions, ways = _ways(asked, wanted)
    branches, edges = [], []
    for condition, way, collected in ways:
        rest = sorted(wanted - way.filters)
        scan = max(SCAN, limit + 1) if rest else limit
        branches.append(_branch(way, rest, asked, condition, "ALL" if collected else str(scan), limit))
        if rest and not collected:
            edges.append(_edge(way, condition, scan))
    parts = {
        "{decisions}": decisions,
        "{branches}": "\n    UNION ALL\n    ".join(branches),
        "{edges}": "\n    UNION ALL\n    ".join(edges)
        or "SELECT NULL::timestamptz AS created_at, NULL::uuid AS id WHERE false",
        "{limit}": str(int(limit)),
        "{text}": quoted(schema).replace("'", "''"),
        "{schema}": quoted(schema),
    }
    text = statement(name, schema).decode()
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text.encode(), given


def _given(asked: Asked) -> dict[str, Any]:
    """The parameters."""
    given = {key: value for key, value in asked._asdict().items() if value is not None}
    if asked.statuses is not None:
        given["final"] = [status for status in asked.statuses if status in (*ENDED, "failed")]
        given["live"] = [status for status in asked.statuses if status not in given["final"]]
        del given["statuses"]
    if asked.after is not None:
        given["at"], given["id"] = asked.after
        del given["after"]
    if asked.name is not None:
        given["rewound"] = asked.name + REWOUND
    return {key: value for key, value in given.items() if value is not None}


def _filters(asked: Asked) -> list[str]:
    """Which filters are given. A range of creation and a place are part of every source."""
    given = [
        name
        for name in ("name", "tags", "queue", "parent_id", "error_type", "waiting_for")
        if getattr(asked, name) is not None
    ]
    if asked.statuses is not None:
        given.append("status")
    if asked.ended_after is not None or asked.ended_before is not None:
        given.append("ended")
    return given


def _ways(asked: Asked, wanted: frozenset[str]) -> tuple[str, list[tuple[str, _Way, bool]]]:
    """What is decided first, and each way with the condition under which it is gone, and whether it collects.

    What is decided is read only where a condition asks for it.
    """
    decisions: list[str] = []
    ways: list[tuple[str, _Way, bool]] = []
    left = "true"
    collected: _Way | None = None
    if "tags" in wanted:
        collected = _tagged(asked)
        decisions.append(f"few AS MATERIALIZED ({_few_tagged()})")
    elif "ended" in wanted:
        collected = _Way(f"SELECT s.* FROM ended AS s WHERE {_place(asked, 's', 'id')}", frozenset({"ended"}))
        decisions += [_bounded("ended", _ended(asked)), _decided("few", _READY, "ended")]
    if collected is not None:
        few = "(SELECT d.few FROM few AS d)"
        ways.append((few, collected, True))
        left = f"NOT {few}"
    way, parts = _by_index(asked, wanted)
    if way is not None:
        ready = f"{_READY} AND {_SMALL}" if _COMPLETED in parts else _READY
        if parts:
            decisions += [_bounded("gathered", parts), _decided("near", ready, "gathered")]
        else:
            decisions.append(f"near AS MATERIALIZED (SELECT {ready} AS near)")
        near = "(SELECT d.near FROM near AS d)"
        ways.append((f"{left} AND {near}", way, False))
        left = f"{left} AND NOT {near}"
    ways.append((left, _by_workflows(asked, wanted), False))
    return "".join(f"{each},\n" for each in decisions), ways


def _bounded(name: str, parts: Sequence[str]) -> str:
    """Rows from several places, one more of each than may be collected at most."""
    bounded = " UNION ALL ".join(f"(SELECT p.* FROM ({part}) AS p LIMIT {FEW + 1})" for part in parts)
    return f"{name} AS MATERIALIZED ({bounded})"


def _decided(name: str, ready: str, rows: str) -> str:
    """Whether these rows are all, and few."""
    return f"{name} AS MATERIALIZED (SELECT {ready} AND (SELECT count(*) FROM {rows}) <= {FEW} AS {name})"


def _branch(way: _Way, rest: Sequence[str], asked: Asked, condition: str, scan: str, limit: int) -> str:
    """The rows that one way finds."""
    source = way.source if scan == "ALL" else way.source.replace("{most}", scan) + f" LIMIT {scan}"
    alias = "w" if way.whole else "s"
    tests = [condition, *(_test(name, asked) for name in rest)]
    joins = [] if way.whole or not rest else [_WORKFLOW]
    text = " AND ".join(tests)
    joins += [join for mark, join in ((r"\br\.", _RUN), (r"\be\.", _END)) if re.search(mark, text)]
    return (
        f"(SELECT {alias}.created_at, {alias}.id FROM ({source}) AS {alias} {' '.join(joins)} WHERE {text} "
        f"ORDER BY {alias}.created_at DESC, {alias}.id DESC LIMIT {limit})"
    )


def _edge(way: _Way, condition: str, scan: int) -> str:
    """The last row that was looked at, if there may be more."""
    source = way.source.replace(_OF_WORKFLOWS, "w.created_at, w.id").replace("{most}", str(scan))
    return (
        f"(SELECT s.created_at, s.id FROM ({source} LIMIT {scan}) AS s WHERE {condition} "
        f"ORDER BY s.created_at DESC, s.id DESC OFFSET {scan - 1} LIMIT 1)"
    )


def _test(name: str, asked: Asked) -> str:
    """The condition of a filter that the source has not heeded."""
    if name == "status":
        final, live = "w.status = ANY (%(final)s::text[])", "r.status = ANY (%(live)s::text[])"
        given = _given(asked)
        return f"({final} OR {live})" if given["final"] and given["live"] else live if given["live"] else final
    if name == "ended":
        tests = ["w.status IS NOT NULL"]
        tests += ["w.completed_at >= %(ended_after)s::timestamptz"] if asked.ended_after is not None else []
        tests += ["w.completed_at < %(ended_before)s::timestamptz"] if asked.ended_before is not None else []
        return " AND ".join(tests)
    return {
        "name": "w.name = %(name)s::text",
        "tags": "w.tags @> %(tags)s::jsonb",
        "queue": "coalesce(r.queue, e.queue) = %(queue)s::text",
        "parent_id": "w.parent_id = %(parent_id)s::uuid",
        "error_type": f"(r.status = 'failed' AND {_FAILED_OF})",
        "waiting_for": "(r.status IN ('sleeping', 'paused') AND %(waiting_for)s::text = ANY (r.waiting_for))",
    }[name]


def _place(asked: Asked, alias: str, id: str) -> str:
    """The condition of every source: where the list goes on, and the range of creation. What ended before a moment was
    created before it.
    """
    at = f"{alias}.created_at"
    tests = []
    if asked.after is not None:
        moment = "%(at)s::timestamptz"
        if asked.after[0] is None:
            moment = "(SELECT l.created_at FROM {schema}.workflows AS l WHERE l.id = %(id)s::uuid)"
        tests.append(f"({at}, {alias}.{id}) < ({moment}, %(id)s::uuid)")
    if asked.created_after is not None:
        tests.append(f"{at} >= %(created_after)s::timestamptz")
    if asked.created_before is not None:
        tests.append(f"{at} < %(created_before)s::timestamptz")
    if asked.ended_before is not None:
        tests.append(f"{at} < %(ended_before)s::timestamptz")
    return " AND ".join(tests) or "true"


def _ordered(asked: Asked, table: str, condition: str, columns: str | None = None) -> str:
    """The rows of a table for a condition, in the list's order."""
    alias, id = {"workflows": ("w", "id"), "runs": ("r", "workflow_id"), "ends": ("e", "workflow_id")}[table]
    return (
        f"SELECT {columns or f'{alias}.created_at, {alias}.{id} AS id'} FROM {{schema}}.{table} AS {alias} "
        f"WHERE {condition} AND {_place(asked, alias, id)} ORDER BY {alias}.created_at DESC, {alias}.{id} DESC"
    )


def _merged(parts: Sequence[str]) -> str:
    """Several sources in one order. Each is bounded, so that it is not read whole."""
    if len(parts) == 1:
        return parts[0]
    bounded = " UNION ALL ".join(f"({part} LIMIT {{most}})" for part in parts)
    return f"SELECT u.created_at, u.id FROM ({bounded}) AS u ORDER BY u.created_at DESC, u.id DESC"


def _by_workflows(asked: Asked, wanted: frozenset[str]) -> _Way:
    """By an index of `workflows`."""
    for name in ("parent_id", "name"):
        if name in wanted:
            return _Way(_ordered(asked, "workflows", _test(name, asked), _OF_WORKFLOWS), frozenset({name}), True)
    return _Way(_ordered(asked, "workflows", "true", _OF_WORKFLOWS), frozenset(), True)


def _by_index(asked: Asked, wanted: frozenset[str]) -> tuple[_Way | None, list[str]]:
    """By indexes of `runs` and `ends`, and what is to be collected for that; None: none is better than those of
    `workflows`.
    """
    name = " AND {alias}.name = %(name)s::text" if "name" in wanted else ""
    named = {"name"} & wanted
    # In `runs`, those that were rewound stand under a name of their own: two stretches of an index.
    either = [name.format(alias="r"), *([" AND r.name = %(rewound)s::text"] if name else [])]
    if "parent_id" in wanted:
        return None, []
    if "error_type" in wanted:
        possible = "true" if asked.statuses is None or "failed" in asked.statuses else "false"
        test = f"r.status = 'failed' AND r.error_type = %(error_type)s::text AND {possible}"
        parts = [_ordered(asked, "runs", test + one) for one in either]
        return _Way(_merged(parts), frozenset({"error_type", "status", *named})), []
    if "waiting_for" in wanted:
        tests = (
            "r.waiting_for[1] = %(waiting_for)s::text",
            "cardinality(r.waiting_for) > 1 AND r.waiting_for[1] <> %(waiting_for)s::text",
        )
        parts = [_ordered(asked, "runs", f"{_LISTENS} AND {test}") for test in tests]
        return _Way(_merged(parts), frozenset()), []  # those that wait for several are looked at one by one
    queued = "queue" in wanted and asked.queue != "default"
    if asked.statuses is not None and not (queued and "completed" in asked.statuses):
        parts = []
        for status in (one for one in asked.statuses if one in ("cancelled", "paused", "failed")):
            if status == "cancelled":
                parts.append(_ordered(asked, "ends", "e.status = 'cancelled'" + name.format(alias="e")))
            else:
                parts += [_ordered(asked, "runs", f"r.status = '{status}'{one}") for one in either]
        live = [part for status in asked.statuses for part in _live(status)]
        if live:
            statuses = ", ".join(f"'{status}'" for status in asked.statuses)
            called = " AND s.name IN (%(name)s::text, %(rewound)s::text)" if name else ""
            parts.append(_gathered(asked, f"s.status IN ({statuses}){called}"))
        return _Way(_merged(parts), frozenset({"status", *named})), list(dict.fromkeys(live))
    if queued:
        test = "{alias}.queue = %(queue)s::text AND {alias}.queue <> 'default'"
        parts = [
            _ordered(asked, "runs", f"{test.format(alias='r')} AND r.status IN ('sleeping', 'paused', 'failed')"),
            _ordered(asked, "ends", test.format(alias="e")),
            _gathered(asked, "s.queue = %(queue)s::text AND s.status IN ('pending', 'running')"),
        ]
        claimable = f"SELECT {_OF_RUNS} FROM {{schema}}.runs AS r WHERE {_CLAIMABLE} AND r.queue = %(queue)s::text"
        return _Way(_merged(parts), frozenset({"queue"})), [f"{claimable} ORDER BY {_BY_CLAIM}", *_live("running")]
    return None, []


def _live(status: str) -> list[str]:
    """Where all workflows with a status are, in no order that helps; none if there is an index in the list's order."""
    claimable = f"SELECT {_OF_RUNS} FROM {{schema}}.runs AS r WHERE {_CLAIMABLE} ORDER BY {_BY_CLAIM}"
    asleep = f"SELECT {_OF_RUNS} FROM {{schema}}.runs AS r WHERE r.status = 'sleeping' AND r.wake_at IS NULL"
    return {
        "pending": [claimable],
        "sleeping": [
            claimable,
            f"{asleep} AND r.waiting_for IS NOT NULL ORDER BY r.waiting_for[1], r.created_at, r.workflow_id",
            f"{asleep} AND r.waiting_for IS NULL ORDER BY r.created_at, r.workflow_id",
        ],
        "running": [
            f"SELECT {_OF_RUNS} FROM {{schema}}.runs AS r WHERE r.status = 'running' ORDER BY r.worker_id, r.claim"
        ],
        "completed": [_COMPLETED],
    }.get(status, [])


def _gathered(asked: Asked, condition: str) -> str:
    """Those of the collected ones for which a condition holds, in the list's order."""
    return (
        f"SELECT s.created_at, s.id FROM gathered AS s WHERE {condition} AND {_place(asked, 's', 'id')} "
        "ORDER BY s.created_at DESC, s.id DESC"
    )


def _tagged(asked: Asked) -> _Way:
    """All with a tag. The index leaves out workflows without tags, and so must this."""
    test = f"{_test('tags', asked)} AND w.tags <> '{{}}'::jsonb AND {_place(asked, 'w', 'id')}"
    return _Way(
        f"SELECT {_OF_WORKFLOWS} FROM {{schema}}.workflows AS w WHERE {test} OFFSET 0", frozenset({"tags"}), True
    )


def _few_tagged() -> str:
    """Whether it is worth while to collect what has a tag: by how many have it in some pages of the table."""
    return (
        f"SELECT count(*) * greatest(1, {_PAGES} / {SAMPLE}) <= {FEW} AS few FROM {{schema}}.workflows AS t "
        f"TABLESAMPLE SYSTEM (least(100, 100.0 * {SAMPLE} / greatest(1, {_PAGES}))) REPEATABLE (7) "
        "WHERE t.tags @> %(tags)s::jsonb"
    )


def _ended(asked: Asked) -> list[str]:
    """Where all are that ended in a range of time."""
    tests: dict[str, list[str]] = {"e.ended_at": ["true"], "r.failed_at": ["r.status = 'failed'"]}
    for column, parts in tests.items():
        parts += [f"{column} >= %(ended_after)s::timestamptz"] if asked.ended_after is not None else []
        parts += [f"{column} < %(ended_before)s::timestamptz"] if asked.ended_before is not None else []
    ends, failed = (" AND ".join(parts) for parts in tests.values())
    return [
        f"SELECT e.created_at, e.workflow_id AS id FROM {{schema}}.ends AS e WHERE {ends} "
        "ORDER BY e.ended_at, e.workflow_id",
        f"SELECT r.created_at, r.workflow_id AS id FROM {{schema}}.runs AS r WHERE {failed} ORDER BY r.failed_at",
    ]
