"""The PostgreSQL that the tests run on, and databases of their own for them.

PGFLOW_TEST_DSN if it is set; else a container where Docker answers; else the embedded server. One server serves all the
processes of a test run; each test gets a database of its own, copied from a migrated template.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

VARIABLE = "PGFLOW_TEST_DSN"

FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "autovacuum_naptime": "5s",
}
"""A test server loses nothing that anybody would miss in a power cut."""


@contextmanager
def server() -> Iterator[str]:
    """The DSN of a server for a whole test run."""
    given = os.environ.get(VARIABLE)
    with ExitStack() as stack:
        yield given or _container(stack) or _embedded(stack)


def _container(stack: ExitStack) -> str | None:
    """A container, where a Docker engine answers."""
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return None
    import docker
    from testcontainers.postgres import PostgresContainer

    try:
        docker.from_env(timeout=3).ping()
    except docker.errors.DockerException:
        return None
    settings = " ".join(f"-c {name}={value}" for name, value in FAST.items())
    container = PostgresContainer("postgres:18", driver=None).with_command(f"postgres {settings}")
    return str(stack.enter_context(container).get_connection_url())


def _embedded(stack: ExitStack) -> str:
    from pgflow.embedded import Postgres

    return stack.enter_context(Postgres(settings=FAST)).dsn


@contextmanager
def database(server_dsn: str, template: str | None = None, encoding: str | None = None) -> Iterator[str]:
    """A database of its own, of the server's encoding unless told otherwise, dropped at the end."""
    name = f"pgflow_test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        made = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            made += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        if encoding is not None:
            made += sql.SQL(" ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0").format(encoding)
        connection.execute(made)
    try:
        yield make_conninfo(server_dsn, dbname=name)
    finally:
        with psycopg.connect(server_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def name_of(dsn: str) -> str:
    """The name of the database that a DSN leads to."""
    return str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
