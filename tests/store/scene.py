"""What the store's tests share: a database seen through plain SQL, and writes whose fate can be awaited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from pgflow.history.events import KIND_ACTIVITY, KIND_LOOP, STATUS_COMPLETED, STATUS_PENDING
from pgflow.model.outcomes import Outcome
from pgflow.model.rows import EventRow, RunKey
from pgflow.model.writes import Advance, Write
from pgflow.store.database.connections import Database
from pgflow.uuid7 import uuid7
from tests.waiting import until


def row(location: str, output: str | None = "null", **values: Any) -> EventRow:
    """A row of an activity that completed, but for what `values` say."""
    row = EventRow(
        location=location,
        iteration=0,
        seq=None,
        version=1,
        kind=KIND_ACTIVITY,
        name="work",
        status=STATUS_COMPLETED,
        attempts=1,
        input=None,
        output=output,
        error=None,
        wake_at=None,
        turn_state=None,
        turn_now=None,
        loop_progress=None,
        loop_state=None,
    )
    return row._replace(**values)


def loop_row(location: str = "1", **values: Any) -> EventRow:
    """The row of a loop that has just opened."""
    return row(
        location,
        None,
        kind=KIND_LOOP,
        name="loop",
        status=STATUS_PENDING,
        attempts=0,
        loop_progress=0,
        loop_state="0",
    )._replace(**values)


class Scene:
    """One database with the schema, and raw statements on it."""

    def __init__(self, dsn: str, schema: str = "pgflow", lease: float = 15.0) -> None:
        self.database = Database(dsn, schema, lease)
        self.sql = psycopg.connect(dsn, autocommit=True)
        self.sql.execute("SELECT set_config('search_path', %s, false)", [schema])
        self.log: dict[int, list[tuple[str, Any, Any]]] = {}

    def other(self) -> psycopg.Connection[Any]:
        """Another connection, not in autocommit."""
        connection = psycopg.connect(self.database.dsn)
        connection.execute("SELECT set_config('search_path', %s, false)", [self.database.schema])
        connection.commit()
        return connection

    def close(self) -> None:
        self.sql.close()

    def all(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query; a row of one column is its value."""
        rows = self.sql.execute(query.encode(), values or None).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def one(self, query: str, *values: Any) -> Any:
        (found,) = self.all(query, *values)
        return found

    def do(self, query: str, *values: Any) -> None:
        self.sql.execute(query.encode(), values or None)

    def worker(self, lease: float = 3600.0, lock_key: int | None = None) -> int:
        found: int = self.one(
            "INSERT INTO workers (host, pid, lock_key, version, queues, expires_at) VALUES "
            "('here', 1, %s, '1', '{default}', now() + make_interval(secs => %s)) RETURNING id",
            lock_key,
            lease,
        )
        return found

    def run(
        self,
        worker: int | None = None,
        *,
        epoch: int | None = None,
        name: str = "flow",
        status: str | None = None,
        wake_in: float | None = 0.0,
        **columns: Any,
    ) -> UUID:
        """A workflow: running under `worker` at epoch 1, or pending, due in `wake_in` seconds."""
        workflow_id = uuid7()
        self.do("INSERT INTO workflows (id, name, input) VALUES (%s, %s, '{}')", workflow_id, name)
        values = {
            "workflow_id": workflow_id,
            "name": name,
            "status": status or ("running" if worker else "pending"),
            "worker_id": worker,
            "claim": 1 if worker else None,
            "epoch": epoch if epoch is not None else (1 if worker else 0),
            **columns,
        }
        names = ", ".join(values)
        self.do(
            f"INSERT INTO runs ({names}, wake_at) VALUES "
            f"({', '.join(['%s'] * len(values))}, now() + make_interval(secs => %s))",
            *values.values(),
            None if worker else wake_in,
        )
        return workflow_id

    def locations(self, workflow_id: UUID, table: str = "events") -> list[str]:
        return self.all(f"SELECT location FROM {table} WHERE workflow_id = %s ORDER BY location", workflow_id)

    # Writes whose fate is logged: ("committed" | "refused", write or advance, time or error)

    def write(
        self,
        workflow_id: UUID,
        rows: Sequence[EventRow] = (),
        outcome: Outcome | None = None,
        epoch: int = 1,
    ) -> Write:
        return Write(RunKey(str(workflow_id), epoch), list(rows), outcome, self._committed, self._refused)

    def advance(
        self,
        workflow_id: UUID,
        turns: int,
        *,
        location: str = "1",
        keep: int = 100,
        state: Any = None,
        output: Any = None,
        seq: int | None = None,
        epoch: int = 1,
    ) -> Advance:
        return Advance(
            workflow_id,
            epoch,
            location,
            turns,
            json.dumps(state),
            keep,
            None if seq is None else json.dumps(output),
            seq,
            self._committed,
            self._refused,
            started=10 * turns,
        )

    def _committed(self, what: Any, at: datetime) -> None:
        assert isinstance(at, datetime)
        self.log.setdefault(id(what), []).append(("committed", what, at))

    def _refused(self, what: Any, error: BaseException) -> None:
        self.log.setdefault(id(what), []).append(("refused", what, error))

    def fate(self, what: Any) -> str | None:
        """ "committed", "refused", or None as long as neither has been told."""
        told = self.log.get(id(what), [])
        assert len(told) <= 1, f"told {len(told)} times: {told}"
        return told[0][0] if told else None

    def told(self, what: Any) -> Any:
        """The time or the error that came with the fate."""
        return self.log[id(what)][0][2]

    async def fates(self, *what: Any) -> list[str | None]:
        """What became of writes or advancements, waiting for it."""
        await until(lambda: all(map(self.fate, what)), "the fate of writes")
        return [self.fate(each) for each in what]
