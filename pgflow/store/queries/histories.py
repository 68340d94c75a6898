"""Stored histories to be replayed without a lease: for an export, or to check many before a deployment.

Many are read in batches bounded by bytes, each in a short read-only transaction that has ended before anything is
replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflow.history.events import Event
from pgflow.history.rewinds import names_of_rewound
from pgflow.history.stored import StoredHistory
from pgflow.store.database.connections import statement
from pgflow.store.database.pooler import Connection
from pgflow.store.database.query import Query

ENDED = ("completed", "cancelled")
"""The statuses of workflows that never go on."""

BATCH = 200
"""The most histories that are read at once."""

BATCH_BYTES = 32 << 20
"""Characters of payload that are read at once; one history may have more."""

PAGE = 1_000
"""Ids that are read at once."""

COUNTED = 1_000
"""How far workflows of a name that nobody knows are counted."""

_FIRST, _AFTER_EVENT = 1, 20


def read(schema: str, id: UUID) -> Query[list[StoredHistory]]:
    """The statement that reads one workflow with its history; an unknown one gives an empty list."""
    return Query(statement("histories", schema), {"ids": [id]}, lambda rows: list(_histories(rows)))


class Histories:
    """Reads many histories on one connection, and writes nothing.

    Args:
        connection: One that commits by itself; it is used for reading alone from here on.
        schema: The schema of the tables.

    Example:
        for history in Histories(connection, "pgflow").select(["checkout"], ["sleeping"], 100):
            replay(checkout, history)
    """

    def __init__(self, connection: Connection, schema: str) -> None:
        connection.read_only = True
        self._connection = connection
        self._schema = schema

    def select(self, names: Sequence[str], statuses: Sequence[str], limit: int) -> Iterator[StoredHistory]:
        """Histories of the workflows that may go on, then of those that have ended; of both, the youngest are chosen
        first.

        Args:
            names: Workflows of these names.
            statuses: In one of these statuses.
            limit: The most histories to give.
        """
        live = [status for status in statuses if status not in ENDED]
        ended = [status for status in statuses if status in ENDED]
        for file, wanted in (("histories_live", live), ("histories_ended", ended)):
            for ids in self._pages(file, names, wanted, limit):
                limit -= len(ids)
                yield from self.read(ids)

    def read(self, ids: Sequence[UUID]) -> Iterator[StoredHistory]:
        """Histories by id, as they stand when their turn comes; unknown ones are left out."""
        left = sorted(ids)
        while left:
            batch = self._batch(left[:BATCH])
            whole = not batch or len(batch) == len(left[:BATCH])
            done = left[:BATCH][-1] if whole else batch[-1].id
            left = [id for id in left if id > done]
            yield from batch

    def others(self, names: Sequence[str]) -> dict[str, int]:
        """How many workflows there are of other names than these, each counted up to `COUNTED`."""
        asked = {"names": list(names), "bound": COUNTED}
        with self._connection.transaction():
            cursor = self._connection.execute(statement("histories_unknown", self._schema), asked)
            return dict(cursor.fetchall())

    def _pages(self, file: str, names: Sequence[str], statuses: Sequence[str], limit: int) -> Iterator[list[UUID]]:
        before: UUID | None = None
        at: datetime | None = None
        while statuses and limit > 0:
            size = min(PAGE, limit)
            asked = {
                "names": list(names),
                "rewound": names_of_rewound(names),
                "statuses": statuses,
                "before": before,
                "at": at,
                "limit": size,
            }
            with self._connection.transaction():
                cursor = self._connection.execute(statement(file, self._schema), asked)
                found = cursor.fetchall()
            if found:
                yield [id for id, _ in found]
            if len(found) < size:
                return
            before, at = found[-1]
            limit -= size

    def _batch(self, ids: list[UUID]) -> list[StoredHistory]:
        """The first of these histories, as many as the bound on bytes allows, at least one."""
        with self._connection.transaction(), self._connection.cursor("histories") as cursor:
            cursor.itersize = 500
            cursor.execute(statement("histories", self._schema), {"ids": ids})
            return list(_histories(cursor, BATCH_BYTES))


def _histories(rows: Iterable[tuple[Any, ...]], bound: int | None = None) -> Iterator[StoredHistory]:
    """Histories from the rows of the statement, until so many characters have been read."""
    current: StoredHistory | None = None
    size = 0
    for row in rows:
        if current is None or row[0] != current.id:
            if current is not None:
                yield current
                if bound is not None and size > bound:
                    return
            current = _workflow(row)
        if row[1] is not None:
            current.events.append(Event._make(row[_FIRST:_AFTER_EVENT]))
        size += sum(len(value) for value in row if isinstance(value, str))
    if current is not None:
        yield current


def _workflow(row: tuple[Any, ...]) -> StoredHistory:
    name, status, tags, seed, created_at, parent_id, now, cancellations, input, output, error = row[_AFTER_EVENT:]
    return StoredHistory(
        row[0],
        name,
        status,
        input,
        tags,
        seed,
        created_at,
        parent_id,
        output,
        error,
        now,
        [],
        tuple(cancellations or ()),
    )
