"""`Postgres`: one server over one directory, for as long as its owner lives."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from pgflow import forking
from pgflow.embedded.binaries import find, reachable, server_user
from pgflow.errors import PgflowError

_DEFAULTS = {
    "listen_addresses": "",
    "max_connections": "200",
    "log_min_messages": "warning",
    "logging_collector": "off",
}
GUARD = Path(__file__).with_name("guard.py")
"""The program that guards the server; the user who runs it has to be able to read it."""

_LOOK = 0.01
"""Seconds between two looks at a starting server."""


class EmbeddedError(PgflowError):
    """The embedded server could not be started."""


class Postgres:
    """A running PostgreSQL server as a context manager. It ends when the process that owns it ends, even by SIGKILL.

    Args:
        directory: where its data lie, and stay; a temporary one, removed at the end, if not given.
        settings: server settings by name, e.g. {"shared_buffers": "256MB"}.
        binaries: the bin directory of another PostgreSQL; else PGFLOW_POSTGRES_BINARIES, else the embedded one.
        startup: seconds that a start may take, crash recovery included.

    Raises:
        BinariesMissing: (at the start) no programs were found.
        EmbeddedError: (at the start) the directory is in use or out of reach, or the server does not start.

    Example:
        with pgflow.embedded.Postgres() as server:
            print(server.dsn)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        settings: Mapping[str, str] | None = None,
        binaries: str | os.PathLike[str] | None = None,
        startup: float = 600.0,
    ) -> None:
        self._directory = None if directory is None else Path(directory).absolute()
        self._settings = {**_DEFAULTS, **(settings or {})}
        self._binaries = binaries
        self._startup = startup
        self._guard: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._temporary: list[Path] = []
        self._socket: Path | None = None
        forking.watch(self)

    def after_fork(self) -> None:
        """The server is the parent's: in a child it goes on being reachable, is not stopped, and does not outlive the
        parent.
        """
        guard, self._guard, self._temporary = self._guard, None, []
        if guard is not None:
            assert guard.stdin is not None and guard.stdout is not None
            dead_end = os.open(os.devnull, os.O_RDWR)
            for pipe in (guard.stdin, guard.stdout):
                if not pipe.closed:
                    os.dup2(dead_end, pipe.fileno(), inheritable=False)
            os.close(dead_end)
        if self._lock is not None:
            self._lock.close()  # the guard has it as well, and the parent
            self._lock = None
        forking.leave(guard)

    @property
    def dsn(self) -> str:
        """The URL of the running server's database `postgres`.

        Raises:
            EmbeddedError: it does not run.
        """
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """The URL of another database on this server.

        Raises:
            EmbeddedError: it does not run.
        """
        if self._socket is None:
            raise EmbeddedError("the embedded server does not run: use it as `with Postgres() as server`")
        port = self._settings.get("port", "5432")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={quote(str(self._socket), safe='')}&port={port}"

    def start(self) -> Self:
        """Start the server, as entering the context does."""
        if self._guard is not None:
            return self
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server, as leaving the context does."""
        guard, self._guard = self._guard, None
        self._socket = None
        if guard is not None:
            assert guard.stdin is not None
            guard.stdin.close()
            guard.wait()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        for path in self._temporary:
            shutil.rmtree(path, ignore_errors=True)
        self._temporary.clear()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _start(self) -> None:
        user = server_user()
        programs = find(self._binaries)
        if user is not None:
            programs = reachable(programs)
        home = self._make_home()
        self._lock = _take(home / "owner.lock")
        data, log = home / "data", home / "server.log"
        if not (data / "PG_VERSION").exists():
            self._initialise(programs, data)
        # Sockets have paths of at most some hundred bytes: a short directory of their own, closed to others.
        socket = self._make_private("pgf-")
        settings = {**self._settings, "unix_socket_directories": str(socket)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        identity = [str(user.pw_uid), str(user.pw_gid)] if user is not None else ["-1", "-1"]
        self._guard = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                str(GUARD),
                *identity,
                str(log),
                str(programs / "postgres"),
                "-D",
                str(data),
                *options,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._lock.fileno()],
        )
        self._await_ready(data, log)
        self._socket = socket

    def _make_home(self) -> Path:
        if self._directory is None:
            return self._make_private("pgflow-")
        home = self._directory
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedError(f"the directory {home} cannot be made: {error}. Choose another.") from error
        user = server_user()
        if user is not None:
            closed = [path for path in (home, *home.parents) if not path.stat().st_mode & 0o001]
            if closed:
                raise EmbeddedError(
                    f"under root the server runs as `{user.pw_name}`, who cannot enter {closed[-1]}. Choose a "
                    "directory that every user can reach (such as one in /var/tmp), or run as an ordinary user."
                )
        return home

    def _make_private(self, prefix: str) -> Path:
        made = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self._temporary.append(made)
        user = server_user()
        if user is not None:
            os.chown(made, user.pw_uid, user.pw_gid)
        return made

    def _initialise(self, programs: Path, data: Path) -> None:
        """Make the data directory beside its place, then rename it there: a cut-off attempt leaves no half of it."""
        user = server_user()
        draft = data.with_name("data.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if user is not None:
            os.chown(draft, user.pw_uid, user.pw_gid)
        command = [
            str(programs / "initdb"),
            "-D",
            str(draft),
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-locale",
            "-E",
            "UTF8",
            "--no-sync",
            "--no-instructions",
        ]
        made = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd="/",
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )
        if made.returncode:
            raise EmbeddedError(
                f"initdb could not make {draft}: {(made.stderr or made.stdout).strip()[-2000:]}\nIs the disk full, or "
                "the directory not writable? Choose another."
            )
        draft.rename(data)

    def _await_ready(self, data: Path, log: Path) -> None:
        """Wait for as long as the server works on its start; crash recovery may take its time."""
        guard = self._guard
        assert guard is not None and guard.stdout is not None
        pid = guard.stdout.readline().strip()
        until = time.monotonic() + self._startup
        while True:
            try:
                lines = (data / "postmaster.pid").read_bytes().splitlines()
            except (FileNotFoundError, PermissionError):
                lines = []
            if len(lines) >= 8 and lines[0].strip() == pid and lines[7].strip() == b"ready":
                return
            if guard.poll() is not None:
                raise EmbeddedError(f"the server in {data} did not start. Its log ends with:\n{_tail(log)}")
            if time.monotonic() > until:
                raise EmbeddedError(
                    f"the server in {data} was not ready after {self._startup:g} s (`startup`). Its log ends "
                    f"with:\n{_tail(log)}"
                )
            time.sleep(_LOOK)


def _take(path: Path) -> IO[bytes]:
    """Become the only owner of a directory. Of an owner that has just died, the server is given time to end."""
    lock = open(path, "a+b")  # noqa: SIM115 — open for as long as the server runs
    until = time.monotonic() + 40.0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().decode().strip()
            if (owner.isdigit() and _alive(int(owner))) or time.monotonic() > until:
                lock.close()
                raise EmbeddedError(
                    f"{path.parent} is in use by the server of process {owner or 'unknown'}. Connect to that one, "
                    "stop it, or choose another directory."
                ) from None
            time.sleep(0.05)
        else:
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
            lock.flush()
            return lock


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace")[-2000:].strip() or "(nothing)"
    except OSError as error:
        return f"(it cannot be read: {error})"
