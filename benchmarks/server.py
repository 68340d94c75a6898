"""The server that everything is measured on, and a fresh migrated database for each measurement."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

import pgflow
from pgflow.embedded import Postgres

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "max_connections": "200",
    "shared_preload_libraries": "pg_stat_statements",
}
"""Full durability. Checkpoints are rare enough that none falls into a run by chance; each run begins after one."""

_TEMPLATE = "bench_template"


class Server:
    """An embedded PostgreSQL for the length of a `with` block.

    Example:
        with Server() as server, server.database() as dsn:
            ...
    """

    def __init__(self) -> None:
        self._postgres = Postgres(settings=SETTINGS)
        self._numbers = itertools.count(1)
        self.version = ""
        """The server's version."""

    def __enter__(self) -> Server:
        self._postgres.start()
        with self.admin() as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
            self.version = connection.info.parameter_status("server_version") or ""
        pgflow.migrate(self._postgres.dsn_of(_TEMPLATE))
        return self

    def __exit__(self, *_: object) -> None:
        self._postgres.stop()

    def admin(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection to another database than those that are measured."""
        return psycopg.connect(self._postgres.dsn, autocommit=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The DSN of a migrated database of its own, dropped at the end."""
        name = f"bench_{next(self._numbers)}"
        with self.admin() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(_TEMPLATE))
            )
        try:
            yield self._postgres.dsn_of(name)
        finally:
            with self.admin() as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
