"""What the exporter asks of the database, as families of metrics: statements that cost little however much there is.

Each reads a bounded number of rows: by ranges of an index, or from a sample of pages. All of them work on a standby.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pgflow.observe.meters import Family, Labels, gauge
from pgflow.store.database.connections import quoted, statement
from pgflow.store.database.query import Query

SERIES = 1_000
"""The most series of one metric: names, and pairs of a queue and a name."""

COUNTED = 100_000
"""The most due workflows that are counted, over all queues."""

LETTERS = 10_000
"""The most signals of a kind, and suspected workflows, that are counted."""

LIVE_PAGES = 10_000
"""Pages of `runs` that are read for counts; a larger table is sampled."""

ENDED_PAGES = 2_000
"""The same of `workflows`."""

_DUE = "Workflows that are due and that nobody has taken."
_OLDEST = "How long the oldest of them has been due."


class Group(NamedTuple):
    """Metrics that one statement answers.

    Attributes:
        name: as the exporter's own metrics call it.
        keep: seconds for which an answer is good.
        query: the statement, for a schema.
    """

    name: str
    keep: float
    query: Callable[[str], Query[list[Family]]]


def queues(schema: str) -> Query[list[Family]]:
    """The statement for the depth and age of each queue, by the workflows' names."""

    def read(rows: Sequence[tuple[Any, ...]]) -> list[Family]:
        depth: dict[Labels, float] = {(queue, name): float(due) for queue, name, due, *_ in rows}
        age: dict[Labels, float] = {
            (queue, name): 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
            for queue, name, _, oldest, _, now, _ in rows
        }
        return [
            gauge("pgflow_queue_due", _DUE, depth, "queue", "workflow"),
            gauge("pgflow_queue_oldest_due_seconds", _OLDEST, age, "queue", "workflow"),
        ]

    return Query(statement("queues", schema), {"levels": SERIES, "bound": COUNTED}, read)


def live(schema: str) -> Query[list[Family]]:
    """The statement for the numbers of workflows that may go on, and of failed ones."""
    return _by_status(schema, "runs", "exporter_live", LIVE_PAGES)


def ended(schema: str) -> Query[list[Family]]:
    """The statement for the numbers of workflows that have ended and are kept."""
    return _by_status(schema, "workflows", "exporter_ended", ENDED_PAGES)


def _by_status(schema: str, table: str, file: str, pages: int) -> Query[list[Family]]:
    def read(rows: Sequence[tuple[Any, ...]]) -> list[Family]:
        found: dict[Labels, float] = {(name, status): float(round(count)) for name, status, count in rows}
        text = "Workflows by name and status; estimated from a sample where there are many."
        return [gauge("pgflow_workflows", text, found, "workflow", "status")]

    asked = {"table": f"{quoted(schema)}.{table}", "pages": pages, "series": SERIES}
    return Query(statement(file, schema), asked, read)


def signals(schema: str) -> Query[list[Family]]:
    """The statement for signals that nobody has delivered."""

    def read(rows: Sequence[tuple[Any, ...]]) -> list[Family]:
        ((waiting, oldest),) = rows
        return [
            gauge("pgflow_undelivered_signals", "Signals that no worker has delivered yet.", waiting),
            gauge("pgflow_undelivered_oldest_seconds", "How long ago the oldest of them was sent.", max(0.0, oldest)),
        ]

    return Query(statement("exporter_signals", schema), {"bound": LETTERS}, read)


def letters(schema: str) -> Query[list[Family]]:
    """The statement for dead letters. It needs the right to read why they do not fit, which may quote them."""

    def read(rows: Sequence[tuple[Any, ...]]) -> list[Family]:
        dead: dict[Labels, float] = {(name,): count for name, count in rows}
        return [gauge("pgflow_dead_letters", "Signals that were set aside: their bodies do not fit.", dead, "signal")]

    return Query(statement("exporter_letters", schema), {"bound": LETTERS, "series": SERIES}, read)


def workers(schema: str) -> Query[list[Family]]:
    """The statement for who works, and for what one worker at a time does for all."""

    def read(rows: Sequence[tuple[Any, ...]]) -> list[Family]:
        found = {(what, of_which): much for what, of_which, much in rows}
        live = _of("live", found.items())
        overdue = _of("chore", found.items())
        expired, suspected = found["expired", None], found["suspected", None]
        return [
            gauge("pgflow_workers", "Workers with a lease, by the queue that they serve.", live, "queue"),
            gauge("pgflow_workers_expired", "Workers whose lease has ended and that nobody has buried.", expired),
            gauge("pgflow_suspected_workflows", "Workflows that may kill the processes that run them.", suspected),
            gauge("pgflow_chore_overdue_seconds", "How long upkeep has been due and not done.", overdue, "chore"),
            gauge("pgflow_schema_version", "The version of the schema.", found.get(("schema", None), 0.0)),
        ]

    return Query(statement("exporter_workers", schema), {"bound": LETTERS, "series": SERIES}, read)


def _of(what: str, found: Iterable[tuple[tuple[str, str | None], float]]) -> dict[Labels, float]:
    return {(of_which,): much for (kind, of_which), much in found if kind == what and of_which is not None}


def vacuum(schema: str) -> Query[list[Family]]:
    """The statement for what holds back vacuum."""

    def read(rows: Sequence[tuple[Any, ...]]) -> list[Family]:
        seconds: dict[Labels, float] = {(by,): max(0.0, held) for by, held, _ in rows if held is not None}
        transactions: dict[Labels, float] = {(by,): count for by, _, count in rows}
        return [
            gauge("pgflow_vacuum_held_back_seconds", "How long something has held back vacuum.", seconds, "by"),
            gauge("pgflow_vacuum_held_back_transactions", "The same in transactions.", transactions, "by"),
        ]

    return Query(statement("exporter_vacuum", schema), {}, read)


def sizes(schema: str) -> Query[list[Family]]:
    """The statement for the sizes of the tables."""

    def read(rows: Sequence[tuple[Any, ...]]) -> list[Family]:
        size: dict[Labels, float] = {(table,): bytes for table, bytes, *_ in rows}
        families = [gauge("pgflow_table_bytes", "Size, indexes and long values included.", size, "table")]
        if not any(standby for *_, standby in rows):  # which has no statistics of its own
            rows_: dict[Labels, float] = {(table,): live for table, _, live, *_ in rows}
            dead: dict[Labels, float] = {(table,): count for table, _, _, count, _ in rows}
            families.append(gauge("pgflow_table_rows", "Rows, as the statistics have it.", rows_, "table"))
            families.append(gauge("pgflow_table_dead_rows", "Rows that vacuum can remove or will.", dead, "table"))
        return families

    return Query(statement("exporter_sizes", schema), {"schema": schema, "series": SERIES}, read)


GROUPS = (
    Group("workers", 5, workers),
    Group("queues", 5, queues),
    Group("signals", 15, signals),
    Group("letters", 15, letters),
    Group("vacuum", 15, vacuum),
    Group("live", 60, live),
    Group("sizes", 60, sizes),
    Group("ended", 300, ended),
)
"""All of them, the most urgent first."""
