"""Servers of a test's own, from the embedded binaries: a primary, its standby, and what happens to them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

import pgflow
from pgflow.embedded.binaries import find, reachable, server_user
from tests import databases

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "replica",
    "hot_standby": "on",
    "max_connections": "60",
    "wal_receiver_status_interval": "100ms",
    "wal_retrieve_retry_interval": "100ms",
}


class Server:
    """One server over one directory, which its owner starts and stops.

    Args:
        home: where its data and its sockets are.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.data = home, home / "data"
        self._user = server_user()
        self._programs = find() if self._user is None else reachable(find())

    @property
    def dsn(self) -> str:
        """The URL of its database."""
        return f"postgresql://postgres@/postgres?host={self.home}"

    def run(self, program: str, *arguments: object) -> None:
        """Execute one of PostgreSQL's programs, as whoever may."""
        user = self._user
        made = subprocess.run(
            [str(self._programs / program), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )
        assert made.returncode == 0, f"{program}: {made.stderr}"

    def make(self) -> None:
        """Make its data."""
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "--no-sync")

    def set(self, settings: Mapping[str, str]) -> None:
        """Write settings, for the next start or reload."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def control(self, *words: str) -> None:
        """Tell it something by pg_ctl, and wait until that is done."""
        self.run("pg_ctl", "-D", self.data, "-w", "-t", "120", *words)

    def start(self) -> None:
        """Start it."""
        self.control("-l", str(self.home / "log"), "start")

    def restart(self) -> None:
        """Stop it in an orderly way, and start it again."""
        self.control("-l", str(self.home / "log"), "-m", "fast", "restart")

    def die(self) -> None:
        """As when the machine loses its power: nothing more is sent to anybody."""
        self.control("-m", "immediate", "stop")

    @property
    def _processes(self) -> list[int]:
        """Its own, the first of them first."""
        first = int((self.data / "postmaster.pid").read_text().split()[0])
        others = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == first:
                    others.append(int(stat.parent.name))
        return [first, *others]

    def freeze(self) -> None:
        """No process of it goes on: the kernel alone acknowledges what is sent."""
        first, *_ = self._processes
        os.kill(first, signal.SIGSTOP)  # from here on nobody is born
        for number in self._processes[1:]:
            os.kill(number, signal.SIGSTOP)

    def thaw(self) -> None:
        """All go on."""
        for number in reversed(self._processes):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGCONT)

    def promote(self) -> None:
        """Let a standby become a primary."""
        self.control("promote")

    def copy(self, home: Path) -> Server:
        """Another server with the same data; this one has been stopped."""
        other = Server(home)
        shutil.copytree(self.data, other.data, symlinks=True, ignore=shutil.ignore_patterns("postmaster.*"))
        if self._user is not None:
            for path in (other.data, *other.data.rglob("*")):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        other.set({"unix_socket_directories": str(home)})
        return other

    def keep(self) -> None:
        """Keep a copy of its data; it has been stopped."""
        subprocess.run(["cp", "-a", self.data, self.home / "kept"], check=True)

    def restore(self) -> None:
        """Go back to that copy; it has been stopped."""
        shutil.rmtree(self.data)
        (self.home / "kept").rename(self.data)

    def all(self, query: str) -> list[Any]:
        """All rows of a query; a row of one column is its value."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            rows = connection.execute(query.encode()).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def do(self, *statements: str) -> None:
        """Execute statements."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for each in statements:
                connection.execute(each.encode())


class Place:
    """Where servers are made: all of them copies of one that was migrated once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: list[Server] = []
        self._model = Server(self._home("model"))
        self._model.make()
        self._model.set({**SETTINGS, "unix_socket_directories": str(self._model.home)})
        self._model.start()
        try:
            pgflow.migrate(self._model.dsn)
            self._model.do("CREATE TABLE effects (what text)")
        finally:
            self._model.control("-m", "fast", "stop")

    def _home(self, name: str) -> Path:
        home = self._root / name
        home.mkdir()
        user = server_user()
        if user is not None:
            os.chown(home, user.pw_uid, user.pw_gid)
        return home

    @contextmanager
    def server(self, name: str, **settings: str) -> Iterator[Server]:
        """A server with a migrated database, started."""
        server = self._model.copy(self._home(name))
        server.set(settings)
        server.start()
        try:
            yield server
        finally:
            self._end(server)

    @contextmanager
    def standby(self, primary: Server) -> Iterator[Server]:
        """A standby that follows a server."""
        standby = self._model.copy(self._home(f"{primary.home.name}-standby"))
        (standby.data / "standby.signal").touch()
        standby.set({"primary_conninfo": f"host={primary.home} user=postgres", "synchronous_standby_names": ""})
        standby.start()
        try:
            yield standby
        finally:
            self._end(standby)

    def _end(self, server: Server) -> None:
        with suppress(AssertionError, FileNotFoundError):  # a test may have stopped it
            server.thaw()
            server.die()
        shutil.rmtree(server.home, ignore_errors=True)


@contextmanager
def place() -> Iterator[Place]:
    """A place for servers, removed at the end."""
    with databases.directory() as root:
        yield Place(root)
