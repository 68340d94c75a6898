"""Each filter, and each two, list and count what a plain look at all workflows would, page by page, however little one
page may look at; also before earlier ends are entered in `ends`. About 15 seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest

import pgflow
from pgflow.store.queries import listing

BEGAN = datetime(2031, 1, 1, tzinfo=UTC)
STATUSES = ["pending", "running", "sleeping", "paused", "completed", "failed", "cancelled"]
ERRORS = {"A": '{"type": "A", "message": "x"}', "B": '{"type": "B"}', None: '{"type": "A", "message": "no\\u0000text"}'}
"""The last cannot be read by the server, and is of no type."""

NEWS = [["a"], ["b"], ["a", "b"], ["c", "a"]]


class Row(NamedTuple):
    """A workflow as the model knows it."""

    id: UUID
    created: datetime
    name: str
    status: str
    tags: dict[str, Any]
    queue: str
    parent: UUID | None
    ended: datetime | None
    error: str | None
    waits: list[str]
    wakes: datetime | None


def rows(count: int, chance: random.Random) -> list[Row]:
    """Many of one moment, few with some values."""
    made: list[Row] = []
    parents = [UUID(int=1), UUID(int=2), None, None]
    for _ in range(count):
        status = chance.choice(STATUSES)
        created = BEGAN + timedelta(minutes=chance.randrange(40))
        ended = created + timedelta(minutes=chance.randrange(30))
        made.append(
            Row(
                UUID(int=chance.getrandbits(128)),
                created,
                "rare" if chance.random() < 0.1 else "common",
                status,
                chance.choice([{}, {"all": 1}, {"all": 1, "few": 1}] + [{"all": 1}] * 5),
                chance.choice(["default", "default", "slow"]),
                chance.choice(parents),
                ended if status in ("completed", "failed", "cancelled") else None,
                chance.choice(["A", "B", None]) if status == "failed" else None,
                chance.choice(NEWS) if status in ("sleeping", "paused") and chance.random() < 0.5 else [],
                created if status == "pending" or (status == "sleeping" and chance.random() < 0.5) else None,
            )
        )
    return sorted(made, key=lambda row: (row.created, row.id), reverse=True)


def write(dsn: str, made: list[Row]) -> None:
    """Put them in as the engine does: dispatched, then changed, and ended by the removal of their runs."""
    with psycopg.connect(dsn) as sql:
        for row in made:
            error = ERRORS.get(row.error) if row.status == "failed" else None
            sql.execute(
                "INSERT INTO pgflow.workflows (id, name, tags, input, parent_id, created_at) VALUES "
                "(%s, %s, %s::jsonb, '{}', %s, %s)",
                [row.id, row.name, psycopg.types.json.Jsonb(row.tags), row.parent, row.created],
            )
            sql.execute(
                "INSERT INTO pgflow.runs (workflow_id, name, queue, status, waiting_for, wake_at, created_at) VALUES "
                "(%s, %s, %s, 'pending', %s, %s, %s)",
                [row.id, row.name, row.queue, row.waits or None, row.wakes, row.created],
            )
            if row.ended is not None:
                sql.execute(
                    "UPDATE pgflow.workflows SET status = %s, completed_at = %s, error = %s WHERE id = %s",
                    [row.status, row.ended, error, row.id],
                )
            if row.status in ("completed", "cancelled"):
                sql.execute("DELETE FROM pgflow.runs WHERE workflow_id = %s", [row.id])
            else:
                sql.execute("UPDATE pgflow.runs SET status = %s WHERE workflow_id = %s", [row.status, row.id])


def unenter(dsn: str) -> None:
    """As a database is whose workflows ended before `ends` was there."""
    with psycopg.connect(dsn) as sql:
        sql.execute("DELETE FROM pgflow.ends WHERE workflow_id < '80000000-0000-0000-0000-000000000000'")
        sql.execute("UPDATE pgflow.runs SET created_at = NULL, error_type = NULL, failed_at = NULL")
        sql.execute("INSERT INTO pgflow.chores (name) VALUES ('ends')")


FILTERS: dict[str, tuple[dict[str, Any], Callable[[Row], bool]]] = {
    "name": ({"name": "rare"}, lambda row: row.name == "rare"),
    "pending": ({"status": "pending"}, lambda row: row.status == "pending"),
    "running": ({"status": "running"}, lambda row: row.status == "running"),
    "cancelled": ({"status": "cancelled"}, lambda row: row.status == "cancelled"),
    "several": (
        {"status": ["failed", "completed", "sleeping"]},
        lambda row: row.status in ("failed", "completed", "sleeping"),
    ),
    "tag": ({"tags": {"few": 1}}, lambda row: "few" in row.tags),
    "tag of all": ({"tags": {"all": 1}}, lambda row: "all" in row.tags),
    "queue": ({"queue": "slow"}, lambda row: row.queue == "slow"),
    "default queue": ({"queue": "default"}, lambda row: row.queue == "default"),
    "parent": ({"parent_id": UUID(int=1)}, lambda row: row.parent == UUID(int=1)),
    "created": (
        {"created_after": BEGAN + timedelta(minutes=10), "created_before": BEGAN + timedelta(minutes=20)},
        lambda row: BEGAN + timedelta(minutes=10) <= row.created < BEGAN + timedelta(minutes=20),
    ),
    "ended before": (
        {"ended_before": BEGAN + timedelta(minutes=30)},
        lambda row: row.ended is not None and row.ended < BEGAN + timedelta(minutes=30),
    ),
    "ended": (
        {"ended_after": BEGAN + timedelta(minutes=20), "ended_before": BEGAN + timedelta(minutes=40)},
        lambda row: (
            row.ended is not None and BEGAN + timedelta(minutes=20) <= row.ended < BEGAN + timedelta(minutes=40)
        ),
    ),
    "error": ({"error_type": "A"}, lambda row: row.error == "A"),
    "waits": ({"waiting_for": "a"}, lambda row: "a" in row.waits),
}
ALONE = [(name,) for name in FILTERS]
PAIRS = [
    (one, other) for one, other in combinations(FILTERS, 2) if not FILTERS[one][0].keys() & FILTERS[other][0].keys()
]


@pytest.mark.parametrize("scan", [1, 17, 10_001])
@pytest.mark.parametrize("few", [0, 10_000])
def test_pages_and_counts(dsn: str, few: int, scan: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rows(250, random.Random(scan + few))
    write(dsn, made)
    monkeypatch.setattr(listing, "SCAN", scan)
    monkeypatch.setattr(listing, "FEW", few)
    chance = random.Random(scan)
    with pgflow.SyncClient(dsn) as client:
        for entered in (True, False):
            if not entered:
                unenter(dsn)
            for names in ALONE + chance.sample(PAIRS, 12):
                asked = {key: value for name in names for key, value in FILTERS[name][0].items()}
                wanted = [row.id for row in made if all(FILTERS[name][1](row) for name in names)]
                if not entered and {"queue", "default queue"} & set(names):
                    # The queue of what ended before is not known.
                    gone = {row.id for row in made if row.status in ("completed", "cancelled") and row.id.int < 2**127}
                    wanted = [id for id in wanted if id not in gone]
                assert listed(client, asked) == wanted, (names, entered)
                assert counted(client, asked, 7) == len(wanted), (names, entered)
                assert client.count(**asked, limit=1) == min(1, len(wanted)) or scan < 10_001


def listed(client: pgflow.SyncClient, asked: dict[str, Any]) -> list[UUID]:
    """All of a list, page by page."""
    found: list[UUID] = []
    after = None
    while True:
        page = client.list(**asked, limit=9, after=after)
        found += [info.id for info in page]
        assert len(page) <= 9 and (not page.short or len(page) < 9)
        assert page.short == (page.cursor is not None and len(page) < 9)
        after = page.cursor
        if after is None:
            return found


def counted(client: pgflow.SyncClient, asked: dict[str, Any], limit: int) -> int:
    """All of a count, part by part."""
    total = 0
    after = None
    while True:
        number = client.count(**asked, limit=limit, after=after)
        assert number.more == (number.cursor is not None) and number <= limit
        total += number
        after = number.cursor
        if after is None:
            return total
