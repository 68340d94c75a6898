"""A database with a bit of everything in it, for tests of what reads it."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

import psycopg

ERROR = '{"type": "ConnectionError", "message": "the bank is closed", "traceback": "Traceback ..."}'


class Sample(NamedTuple):
    """The workflows in it, by how they stand."""

    pending: UUID
    running: UUID
    sleeping: UUID
    listening: UUID
    looping: UUID
    completed: UUID
    failed: UUID
    child: UUID


def fill(dsn: str, schema: str = "pgflow") -> Sample:
    """Write it; the times are of the last hour."""
    with psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute("SELECT set_config('search_path', quote_ident(%s), false)", [schema])

        def one(query: str, *values: Any) -> Any:
            row = sql.execute(query.encode(), values).fetchone()
            assert row is not None
            return row[0]

        def run(name: str, **columns: Any) -> UUID:
            given = {"tags": '{"customer": 7}', "input": '{"order": {"number": 7}}', "parent_id": None}
            given |= {key: columns.pop(key) for key in list(columns) if key in given}
            id: UUID = one("SELECT dispatch(%s, %s, %s)", name, given["input"], given["tags"])
            sql.execute(
                "UPDATE workflows SET created_at = now() - interval '30 min', parent_id = %s, root_id = %s WHERE id = "
                "%s",
                [given["parent_id"], given["parent_id"], id],
            )
            for column, value in columns.items():
                if column in ("output", "error") or value in ("completed", "cancelled"):
                    sql.execute(
                        f"UPDATE workflows SET {column} = %s, completed_at = now() WHERE id = %s".encode(), [value, id]
                    )
                else:
                    sql.execute(f"UPDATE runs SET {column} = %s WHERE workflow_id = %s".encode(), [value, id])
            if columns.get("status") in ("completed", "cancelled"):
                sql.execute("DELETE FROM runs WHERE workflow_id = %s", [id])
            return id

        def step(
            id: UUID, location: str, kind: str, name: str, status: str, table: str = "events", **columns: Any
        ) -> None:
            values = {"workflow_id": id, "location": location, "kind": kind, "name": name, "status": status} | columns
            if status != "pending":
                values |= {"completed_at": one("SELECT now() - interval '10 min'"), "seq": columns.get("seq", 1)}
            names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
            sql.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})".encode(), list(values.values()))

        worker = (
            "INSERT INTO workers (host, pid, version, queues, heartbeat_at, expires_at) VALUES "
            "(%s, 42, '1.0', '{default}', now() - interval '1 s', now() + %s::interval) RETURNING id"
        )
        alive, dead = one(worker, "here", "14 s"), one(worker, "gone", "-1 min")
        later, before = one("SELECT now() + interval '1 hour'"), one("SELECT now() - interval '5 min'")

        pending = run("checkout", wake_at=before, priority=3)
        running = run("checkout", status="running", wake_at=None, worker_id=alive, claim=1, epoch=2)
        step(running, "1", "activity", "reserve", "completed", output='{"seats": [1, 2]}', attempts=1)
        step(
            running,
            "2",
            "activity",
            "charge",
            "pending",
            attempts=2,
            error=ERROR,
            wake_at=later,
            input='{"cents": 700}',
        )
        run("checkout", status="running", wake_at=None, worker_id=dead, claim=9, epoch=7)
        run("parked", wake_at="infinity")
        sleeping = run("remind", status="sleeping", wake_at=later, tags="{}")
        step(sleeping, "1", "sleep", "", "pending", wake_at=later)
        listening = run(
            "approve", status="sleeping", wake_at=None, waiting_for=["approved", "refused"], parent_id=running
        )
        step(listening, "1", "activity", "ask\x1b[31m", "completed", output='"[bold]yes[/bold]"', attempts=1)
        step(listening, "2", "listen", "", "pending")
        looping = run("collect", status="sleeping", wake_at=later)
        step(looping, "1", "loop", "loop", "pending", loop_progress=20, loop_state='{"page": 20}')
        step(looping, "1,a20,1", "activity", "fetch", "completed", "forgotten_events", iteration=19, output="19")
        step(looping, "1,a21,1", "activity", "fetch", "completed", iteration=20, output="20", turn_state='{"page": 20}')
        step(looping, "1,a21,2", "sleep", "", "pending", iteration=20, wake_at=later)
        completed = run("checkout", status="completed", output='"größe"')
        step(completed, "1", "activity", "reserve", "completed", output="null", attempts=1)
        failed = run("checkout", error=ERROR, status="failed", wake_at=None)
        step(failed, "1", "activity", "charge", "failed", error=ERROR, attempts=5)
        sql.execute("UPDATE workflows SET status = 'failed' WHERE id = %s", [failed])
        child = run("approve", parent_id=listening)
        one("SELECT cancel(%s, reason => 'it is of no use any more', actor => 'kim')", sleeping)
        return Sample(pending, running, sleeping, listening, looping, completed, failed, child)
