"""Connections of the engine to PostgreSQL: how they are opened, kept short, and opened again.

Everything that the engine's connections have in common is decided here, once: they commit by themselves, notice a
dead peer, have adapters of the engine's own, never wait longer than a fraction of the lease, and speak and plan the
same whatever environment, role and database are set to (`session_settings.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from pgflow import faults, forking
from pgflow.errors import LeaseLost
from pgflow.store.database import encodings, hosts, pooler, session_settings
from pgflow.store.database.adapters import CAREFUL, OwnAsyncCursor, OwnCursor
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.pooler import AsyncConnection, Connection
from pgflow.store.database.replication import check_replicated
from pgflow.store.database.silence import SLACK, EngineAsyncConnection, EngineConnection

_log = logging.getLogger("pgflow.store")

_KEEPALIVE = {
    "connect_timeout": "10",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}

AMONG_SEVERAL = "3"
"""Seconds to connect to one of several hosts."""


@cache
def _template(name: str) -> str:
    text = (resources.files("pgflow.store") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    # Comments and indentation are for those who read the file; psycopg remembers only short statements.
    lines = [line.strip() for line in text.splitlines()]
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("--"))


@cache
def quoted(schema: str) -> str:
    """The schema's name as SQL has it."""
    if not schema or "\x00" in schema or "%" in schema or "{" in schema:
        raise ValueError(f"{schema!r} cannot be the name of a pgflow schema: choose letters, digits, underscores")
    return '"' + schema.replace('"', '""') + '"'


@cache
def statement(name: str, schema: str) -> bytes:
    """The SQL of `store/sql/<name>.sql` with the schema's quoted name in it.

    Args:
        name: The file's name without its ending.
        schema: The schema's name as it is, unquoted.

    Raises:
        ValueError: The schema's name cannot be used in a statement.

    Example:
        statement("claim", "pgflow")
    """
    return _template(name).replace("{schema}", quoted(schema)).encode()


def check_dsn(dsn: str) -> None:
    """Check that a DSN can be one, before it is used. No server is asked.

    Raises:
        ValueError: It cannot. The message does not repeat it: it may hold a password.
    """
    expected = "expected a postgresql:// URL or key=value words, such as postgresql://user@host/app"
    if not isinstance(dsn, str):
        raise ValueError(f"dsn={dsn!r}: {expected}")
    try:
        psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        said = str(error).strip().replace(dsn, "...")
        raise ValueError(f"the DSN is not understood: {said}; {expected}") from None


@dataclass(frozen=True, slots=True)
class Database:
    """Where the engine's tables are, and how long a statement of the engine may take.

    Args:
        dsn: What psycopg connects to.
        schema: The schema of the tables.
        lease: The worker's lease in seconds; no statement of the engine runs for longer than two thirds of it.
        application: What `pg_stat_activity` shows, before the connection's purpose.
        longest_silence: The most seconds for which the server may say nothing, if that is less than what follows from
            the lease.

    Raises:
        ValueError: The DSN is none, or the schema's name cannot be used in a statement.

    Example:
        database = Database("postgresql:///app")
        connection = await database.connect("journal")
    """

    dsn: str
    schema: str = "pgflow"
    lease: float = 15.0
    application: str = "pgflow"
    longest_silence: float | None = None

    def __post_init__(self) -> None:
        check_dsn(self.dsn)
        quoted(self.schema)

    @property
    def statement_timeout(self) -> int:
        """Milliseconds that a statement may take: below the lease, so that no write outlives it."""
        return max(100, int(self.lease * 1000 * 2 / 3))

    @property
    def silence(self) -> float:
        """Seconds without a word from the server after which an answer is not waited for any more: `silence.py`."""
        usual = self.statement_timeout / 1000 + SLACK
        return usual if self.longest_silence is None else min(usual, self.longest_silence)

    def statement(self, name: str) -> bytes:
        """The SQL of one file in `store/sql`, for this schema."""
        return statement(name, self.schema)

    @property
    def _given(self) -> dict[str, Any]:
        return psycopg.conninfo.conninfo_to_dict(self.dsn)

    def _conninfo(self, purpose: str, within: float | None = None) -> str:
        """The caller's connection string with what the engine adds to it. Settings are made later: see
        `session_settings.py`.
        """
        return _conninfo(self.dsn, within, application_name=f"{self.application} {purpose}")

    def _settings(self, connection: AsyncConnection | Connection, plain: bool) -> dict[str, str]:
        return {} if plain else session_settings.session(self.statement_timeout, connection.info.server_version)

    async def connect(self, purpose: str, *, plain: bool = False, lock_timeout: int | None = None) -> AsyncConnection:
        """Open one asynchronous connection, and see whether there is a pooler in between.

        Args:
            purpose: What it is for: a word that `pg_stat_activity` shows.
            plain: For statements that are not the engine's: opened as the application's own connections are.
            lock_timeout: Milliseconds that its statements wait for a lock, if not as long as they may take.

        Raises:
            psycopg.OperationalError: The server cannot be reached or refuses.
            PgflowError: There is a pooler in between, and a setting of the role with which the engine cannot work.
        """
        context = None if plain else CAREFUL
        connection = await EngineAsyncConnection.connect(self._conninfo(purpose), autocommit=True, context=context)
        self._note(connection, plain)
        try:
            made = self._settings(connection, plain)
            if lock_timeout is not None:
                made["lock_timeout"] = str(lock_timeout)
            await pooler.begin(connection, made)
        except BaseException:
            await connection.close()
            raise
        _fit(connection, plain)
        return connection

    def connect_blocking(
        self, purpose: str, *, plain: bool = False, within: float | None = None, silence: float | None = None
    ) -> Connection:
        """As `connect`, a synchronous connection, for a thread of its own.

        Args:
            purpose: As for `connect`.
            plain: As for `connect`.
            within: Seconds that each host of the DSN has for it, 2 at least, if the DSN gives it no less; None: as the
                DSN says.
            silence: Seconds without a word from the server after which an answer is not waited for any more, if not the
                usual ones.
        """
        context = None if plain else CAREFUL
        connection = EngineConnection.connect(self._conninfo(purpose, within), autocommit=True, context=context)
        self._note(connection, plain, silence)
        try:
            pooler.begin_blocking(connection, self._settings(connection, plain))
        except BaseException:
            connection.close()
            raise
        _fit(connection, plain)
        return connection

    def _note(
        self, connection: EngineAsyncConnection | EngineConnection, plain: bool, silence: float | None = None
    ) -> None:
        """Note what holds for a connection from its first statement on."""
        connection.never_cancelled = not plain
        forking.watch_socket(connection)
        hosts.note(self._given, connection)
        connection.silence, connection.conninfo = self.silence if silence is None else silence, self._conninfo("look")


def _fit(connection: EngineAsyncConnection | EngineConnection, plain: bool) -> None:
    """Set a connection up according to its first answer."""
    needs_own_cursors = encodings.note(connection) or pooler.is_shared(connection)
    if plain:
        connection.silence = None
    elif needs_own_cursors and isinstance(connection, EngineAsyncConnection):
        connection.cursor_factory = OwnAsyncCursor
    elif needs_own_cursors and isinstance(connection, EngineConnection):
        connection.cursor_factory = OwnCursor


class Fencing(Protocol):
    """What a line asks before it is used to write (`fencing.py`)."""

    id: int
    in_doubt: bool

    async def settle(self) -> None:
        """Wait until nothing is in doubt, or raise `LeaseLost`."""
        ...

    async def admit(self, connection: AsyncConnection, under: int | None) -> None:
        """Take a new connection into use, which may replace one on which something was sent under a number."""
        ...


def connect_to_migrate(dsn: str) -> Connection:
    """A synchronous connection for migrations, of which each statement is in a transaction."""
    connection = psycopg.Connection.connect(_conninfo(dsn, application_name="pgflow migration"), context=CAREFUL)
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    connection.read_only = False
    return connection


def _conninfo(dsn: str, within: float | None = None, **extra: str) -> str:
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    usual = dict(_KEEPALIVE)
    if "," in str(given.get("host") or given.get("hostaddr") or ""):
        usual["connect_timeout"] = AMONG_SEVERAL  # the next one may be the one that answers
    extra |= {key: value for key, value in usual.items() if key not in given}
    if within is not None:
        longest = int(given.get("connect_timeout") or usual["connect_timeout"])
        extra["connect_timeout"] = str(max(2, min(int(within), longest) if longest > 0 else int(within)))
    extra |= hosts.reordered(given)
    extra["client_encoding"] = "UTF8"  # what does not pass through psycopg's conversions is sent as UTF-8
    return make_conninfo(dsn, **extra)


class Line:
    """One connection that is opened when needed and again when it was lost.

    It belongs to one task: nothing here guards against two users at once.

    Args:
        database: Where to connect to.
        purpose: What for.
        fence: Of the worker that writes over it: nothing is sent while something sent before may still take effect.

    Example:
        line = Line(database, "journal")
        connection = await line.get()
    """

    def __init__(
        self, database: Database, purpose: str, fence: Fencing | None = None, *, lock_timeout: int | None = None
    ) -> None:
        self.database = database
        self.purpose = purpose
        self.lock_timeout = lock_timeout
        """Milliseconds that statements wait for a lock, if not as long as they may take."""
        self.under = 0 if fence is None else fence.id
        """The number to write under what is sent next: the fence's, at the last `get`."""
        self._fence = fence
        self.opened = 0
        """How many connections have been opened so far."""
        self.on_open: Callable[[AsyncConnection], Any] | None = None
        """Awaited with each new connection before anybody else sees it."""
        self._connection: AsyncConnection | None = None
        self._pipeline: psycopg.AsyncPipeline | None = None

    def adopt(self, connection: AsyncConnection) -> None:
        """Begin with a connection that is open already, on which nothing has to be done first."""
        assert self.on_open is None
        self.opened += 1
        self._connection = connection

    @property
    def alive(self) -> bool:
        """Whether there is a connection that has not been found broken."""
        connection = self._connection
        return connection is not None and not connection.closed

    async def get(self) -> AsyncConnection:
        """The connection; opens one first if there is none, and goes on trying with bounded backoff.

        While the fence is in doubt it waits; once the lease is lost it waits for ever, and the part that uses the line
        is closed.
        """
        connection, fence = self._connection, self._fence
        if connection is not None and not connection.closed:
            if fence is None:
                return connection
            if not fence.in_doubt:
                self.under = fence.id
                return connection
        try:
            if fence is not None and connection is not None and not connection.closed:
                await fence.settle()
            if connection is None or connection.closed:
                connection = await self._open()
        except LeaseLost:
            await asyncio.get_running_loop().create_future()
        assert connection is not None
        if fence is not None:
            self.under = fence.id
        return connection

    async def _open(self) -> AsyncConnection:
        backoff = Backoff()
        while True:
            connection: AsyncConnection | None = None
            passing: type[psycopg.Error] = psycopg.OperationalError
            try:
                connection = await self.database.connect(self.purpose, lock_timeout=self.lock_timeout)
                if self._fence is not None:
                    passing = (
                        psycopg.Error
                    )  # a standby that only reads, a transaction that took too long: the lease bounds the tries
                    await self._fence.admit(connection, self.under if self.opened else None)
                    passing = psycopg.OperationalError
                if self.on_open is not None:
                    await self.on_open(connection)
            except BaseException as error:
                if connection is not None:
                    await connection.close()
                if not isinstance(error, passing):
                    raise
                _log.warning("no connection for %s, trying again: %s", self.purpose, error)
                await asyncio.sleep(backoff.spread_pause())
                continue
            self.opened += 1
            self._connection = connection
            return connection

    @property
    def current(self) -> AsyncConnection | None:
        """The connection that the last `get` gave."""
        return self._connection

    async def reached(self, point: str) -> None:
        """Pass a fault point between two statements of a transaction.

        If a test has installed a hook, what was sent before is executed first; otherwise nothing is waited for.
        """
        if faults.watched():
            if self._pipeline is not None:
                await self._pipeline.sync()
            await faults.reach(point)

    async def drop(self) -> None:
        """Close the connection; the next `get` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @asynccontextmanager
    async def transaction(self, *, serializable: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction whose statements, from BEGIN to COMMIT, leave in one flush.

        Use it for statements that do not need each other's results: those are read after the block.
        """
        connection = await self.get()
        try:
            async with connection.pipeline() as self._pipeline:
                await connection.execute(b"BEGIN ISOLATION LEVEL SERIALIZABLE" if serializable else b"BEGIN")
                await connection.execute(*pooler.opening(connection, self.database.statement_timeout), prepare=True)
                yield connection
                await connection.execute(b"COMMIT")
            check_replicated(connection)
        except psycopg.Error:
            if not connection.closed:
                await connection.rollback()
            raise
        except BaseException:
            # Half of the answers may still be on their way, so this connection cannot be used any more.
            await self.drop()
            raise


def still_open(connection: AsyncConnection) -> bool:
    """Whether an idle connection still stands, as far as this side knows; a `Line` replaces one that does not."""
    try:
        for _ in range(2):  # the server's last words, then the end
            connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return not connection.closed


def is_locked_out(error: BaseException) -> bool:
    """Whether a statement waited for another session's lock for as long as it was allowed to, and did nothing."""
    return isinstance(error, psycopg.errors.LockNotAvailable)


def is_out_of_patience(error: BaseException) -> bool:
    """Whether a statement was given up because it took too long, most likely waiting for somebody else's lock; it has
    done nothing.
    """
    return isinstance(error, psycopg.errors.LockNotAvailable | psycopg.errors.QueryCanceled)


def is_lost(error: BaseException, connection: AsyncConnection | Connection) -> bool:
    """Whether `error` means that the connection broke, so that the fate of what was sent is unknown."""
    return (
        connection.closed
        or pooler.is_elsewhere(error)
        or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None)
    )
