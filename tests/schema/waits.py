"""Statements that have to wait for a lock, and the moment when they do."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg

PATIENCE = 20.0


class Waits:
    """Runs statements in threads and sees them wait."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    def blocked(self, connection: psycopg.Connection[Any], query: str, *values: Any) -> Future[Any]:
        """Begin a statement and return when the server says that it waits for a lock.

        Args:
            connection: not used by anybody else until the statement has ended.

        Returns:
            The first row, later.
        """
        begun = self._threads.submit(lambda: connection.execute(query.encode(), values or None).fetchone())
        deadline = time.monotonic() + PATIENCE
        with psycopg.connect(connection.info.dsn, password=connection.info.password, autocommit=True) as looker:
            look = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
            while looker.execute(look, [connection.info.backend_pid]).fetchone() != ("Lock",):
                assert not begun.done(), f"{query} did not wait: {begun.result()}"
                assert time.monotonic() < deadline, f"waited in vain for {query} to wait"
                time.sleep(0.005)
        return begun
