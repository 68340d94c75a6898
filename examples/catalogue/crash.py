"""The crash of the demo: SIGKILL to the worker that has the most activities in flight, while they are in flight."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import psycopg

IN_FLIGHT = """
SELECT a.process, count(DISTINCT (a.workflow_id, a.file)) FROM public.attempts AS a
WHERE a.process = ANY (%s) AND NOT EXISTS (
    SELECT FROM pgflow.history AS h
    WHERE h.workflow_id = a.workflow_id AND h.input->>'file' = a.file AND h.status = 'completed')
GROUP BY a.process ORDER BY 2 DESC LIMIT 1
"""
BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active' AND query_start < %s
"""


def kill_one(
    connection: psycopg.Connection[Any], workers: list[subprocess.Popen[bytes]]
) -> subprocess.Popen[bytes] | None:
    """Kill the worker that has the most attempts without a result; None when no worker has any at the moment.

    A worker might end them between the look and the kill. So it is stopped first, and killed only if, once everything
    that it has sent to the database is through, it still has some.
    """
    busiest = _busiest(connection, [worker.pid for worker in workers])
    if busiest is None:
        return None
    os.kill(busiest, signal.SIGSTOP)
    (stopped,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
    while connection.execute(BUSY.encode(), [stopped]).fetchone() != (0,):
        pass
    if _busiest(connection, [busiest]) is None:
        os.kill(busiest, signal.SIGCONT)
        return None
    (victim,) = (worker for worker in workers if worker.pid == busiest)
    victim.kill()
    victim.wait()
    return victim


def _busiest(connection: psycopg.Connection[Any], processes: list[int]) -> int | None:
    row = connection.execute(IN_FLIGHT.encode(), [processes]).fetchone()
    return None if row is None else int(row[0])
