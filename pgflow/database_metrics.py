"""The exporter: the metrics that belong to the database, once for all workers.

    nothing known --a scrape--> asked --(the answer is good for a while)--> answered from memory --> asked again

Whoever scrapes waits while the database is asked, but no longer than `PATIENCE`: what was not asked by then shows what
it stood at before. Several who scrape at once share one asking. A group of metrics that cannot be had is left out, and
said to be missing, and the others are there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import psycopg

from pgflow.errors import PgflowError
from pgflow.observe.meters import Counter, Family, Labels, Sample, gauge, merged
from pgflow.observe.process_reports import ProcessReport
from pgflow.store.database.connections import Database, is_lost
from pgflow.store.database.pooler import Connection, opening
from pgflow.store.database.query import ask_blocking
from pgflow.store.queries.exporting import GROUPS, SERIES, Group
from pgflow.store.schema.compatibility import check_blocking

_log = logging.getLogger("pgflow.observe")

STATEMENT = 2.0
"""Seconds that one statement may take."""

PATIENCE = 6.0
"""Seconds after which no further group is asked for one scrape: Prometheus waits 10."""


class Exporter:
    """Reads what is to be exported, on one connection, which it opens when it is needed and opens again when it breaks.

    It may be used by any number of threads.

    Args:
        dsn: the database, or a hot standby of it.
        schema: the schema of pgflow's tables.

    Raises:
        ValueError: the DSN is none, or the schema's name cannot be one.

    Example:
        exporter = Exporter("postgresql:///app")
        with HttpPort("0.0.0.0", 9188, exporter.report, health=exporter.health):
            ...
    """

    def __init__(self, dsn: str, schema: str = "pgflow") -> None:
        self._database = Database(dsn, schema, lease=STATEMENT * 1.5)  # of which a statement may take two thirds
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._found: dict[str, list[Family]] = {}
        self._asked_at: dict[str, float] = {}
        self._took: dict[Labels, float] = {}
        self._problems: dict[str, str | None] = {}
        self._failures = Counter("pgflow_exporter_failures_total", "Statements that have failed, by group.", "group")
        self._seen: dict[Labels, None] = {}
        self._unreachable: str | None = "the database has not been asked yet"

    def check(self) -> None:
        """See that the database can be reached and has a schema that fits.

        Raises:
            psycopg.OperationalError: it cannot be reached.
            PgflowError: its schema does not fit this code, or the server is too old.
        """
        with self._lock:
            check_blocking(self._open(), self._database.schema)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def report(self) -> ProcessReport:
        """All metrics, as they are or were lately, and `health`."""
        with self._lock:
            self._ask(GROUPS)
            families = [*merged(family for group in GROUPS for family in self._families(group)), *self._own()]
            return ProcessReport(None, self._unreachable, families)

    def health(self) -> ProcessReport:
        """Whether the database could be reached when it was last asked; nobody asks it for that."""
        return ProcessReport(None, self._unreachable, [])

    def _families(self, group: Group) -> list[Family]:
        families = self._found.get(group.name, [])
        return [self._with_zeros(family) for family in families] if group.name == "queues" else families

    def _ask(self, groups: Sequence[Group]) -> None:
        """Ask for what is not known well enough any more."""
        started = time.monotonic()
        for group in groups:
            now = time.monotonic()
            asked_at = self._asked_at.get(group.name)
            if asked_at is not None and now < asked_at + group.keep:
                continue
            if now > started + PATIENCE:
                return
            try:
                found = self._read(group)
            except (psycopg.Error, PgflowError) as error:
                self._missed(group, error)
                if self._unreachable is not None:
                    return
            else:
                self._note(group, None)
                self._found[group.name] = found
            self._asked_at[group.name] = time.monotonic()
            self._took[(group.name,)] = time.monotonic() - now

    def _read(self, group: Group) -> list[Family]:
        kept = self._connection
        try:
            return self._read_on(self._open(), group)
        except psycopg.Error as error:
            if kept is None or not is_lost(error, kept):
                raise
            self._drop()  # it may have broken long ago, while nobody looked
        return self._read_on(self._open(), group)

    def _read_on(self, connection: Connection, group: Group) -> list[Family]:
        with connection.transaction():
            text, asked = opening(connection, int(STATEMENT * 1000))
            connection.execute(text, asked)
            return ask_blocking(connection, group.query(self._database.schema))

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            connection = self._database.connect_blocking("exporter", within=PATIENCE / 2)
            connection.read_only = True
            self._connection = connection
        self._unreachable = None
        return self._connection

    def _missed(self, group: Group, error: Exception) -> None:
        connection = self._connection
        if connection is None or connection.closed or is_lost(error, connection):
            self._drop()
            self._unreachable = f"the database cannot be reached: {str(error).strip()}"
            self._found.clear()
            self._asked_at.clear()
        self._found.pop(group.name, None)
        self._failures.add((group.name,))
        self._note(group, str(error).strip())

    def _note(self, group: Group, problem: str | None) -> None:
        if problem is not None and self._problems.get(group.name) is None:
            _log.error('the metrics of the group "%s" are missing: %s', group.name, problem)
        elif problem is None and self._problems.get(group.name) is not None:
            _log.info('the metrics of the group "%s" are there again', group.name)
        self._problems[group.name] = problem

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _with_zeros(self, family: Family) -> Family:
        """The family with zeros for the queues and names that were seen before, so that who scales by it sees them."""
        there = {sample.labels for sample in family.samples}
        for labels in there:
            if len(self._seen) < SERIES:
                self._seen.setdefault(labels)
        gone = [Sample(labels, (0.0,)) for labels in self._seen if labels not in there]
        return family._replace(samples=[*family.samples, *gone])

    def _own(self) -> list[Family]:
        missing: dict[Labels, float] = {(group.name,): float(group.name not in self._found) for group in GROUPS}
        return [
            gauge("pgflow_up", "Whether the database could be reached.", float(self._unreachable is None)),
            gauge("pgflow_exporter_missing", "Whether the group's metrics cannot be had.", missing, "group"),
            gauge("pgflow_exporter_seconds", "How long the group's last statement took.", self._took, "group"),
            self._failures.read(),
        ]
