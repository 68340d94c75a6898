"""The PostgreSQL that the tests run on, and databases of their own for them.

PGFLOW_TEST_DSN if it is set; else a container where Docker answers; else the embedded server. One server serves all the
processes of a test run; each test gets a database of its own, copied from a migrated template.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
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
    "max_wal_size": "256MB",
    "autovacuum_naptime": "5s",
}
"""A test server loses nothing that anybody would miss in a power cut."""

_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
"""Bytes that must be free in memory before servers are put there; the whole suite uses a tenth of that."""


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
    _remove_abandoned()
    return stack.enter_context(embedded())


@contextmanager
def embedded(settings: Mapping[str, str] | None = None, binaries: Path | None = None) -> Iterator[str]:
    """The DSN of an embedded server of its own.

    Args:
        settings: what it is started with besides `FAST`.
        binaries: where its programs are, unless it is the one that pgflow brings.
    """
    from pgflow.embedded import Postgres

    with directory() as home, Postgres(home, FAST | dict(settings or {}), binaries) as server:
        yield server.dsn


@contextmanager
def directory() -> Iterator[Path]:
    """A directory for servers, which an unprivileged one can reach; it is removed at the end.

    It is in memory where there is room: each test copies and drops a database of 300 files, which takes a disk's file
    system five times the CPU.
    """
    where, owner = _MEMORY if _has_room() else Path("/var/tmp"), os.getpid()
    made = Path(tempfile.mkdtemp(prefix=f"pgflow-test-{owner}-", dir=where))
    made.chmod(0o755)  # pytest's own directories are closed to others
    try:
        yield made
    finally:
        if os.getpid() == owner:  # and no child of a test
            shutil.rmtree(made, ignore_errors=True)


def _has_room() -> bool:
    try:
        found = os.statvfs(_MEMORY)
    except OSError:  # no Linux
        return False
    return os.access(_MEMORY, os.W_OK) and found.f_bavail * found.f_frsize > _ROOM


def _remove_abandoned() -> None:
    """Remove what runs that were killed have left in memory."""
    for left in _MEMORY.glob("pgflow-test-*"):
        owner = left.name.split("-")[2]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)


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
