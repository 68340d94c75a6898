"""Transactions that leave in one flush, the cheapest way there is: prepared statements, sent one after the other.

A cursor costs more than a small statement itself. Here each statement is prepared once per connection, parameters are
text, and all answers are read together. What stands between two synchronisation points of libpq's pipelines is one
transaction, without BEGIN and COMMIT. `flush` sets such a point behind each statement, so that a hint can leave right
behind the commit that it announces, outside of its transaction and without a round trip of its own. `transact` sets one
point behind all of them. Through a pooler nothing is prepared, and each transaction begins with the settings that a
session has otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from itertools import count
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from pgflow import faults
from pgflow.store.database import encodings, pooler
from pgflow.store.database.adapters import AnswerReader
from pgflow.store.database.arrays import text_of
from pgflow.store.database.pooler import AsyncConnection, Connection
from pgflow.store.database.replication import check_replicated
from pgflow.store.database.silence import GIVE_UP, EngineAsyncConnection, in_time, too_late

_log = logging.getLogger("pgflow.store")

T = TypeVar("T")

Statement = tuple[bytes, Mapping[str, Any]]
"""SQL with `%(name)s` where its parameters stand, all of them cast to their types; and the parameters."""

Rows = list[tuple[Any, ...]]

Answer = Rows | psycopg.Error
"""The rows of a statement, or why there are none."""


class BulkStatement(NamedTuple):
    """A statement that may return very many rows: they arrive in binary and are passed to `take` in portions, instead
    of being put into a list.
    """

    sql: bytes
    parameters: Mapping[str, Any]
    take: Callable[[Rows], None]


class FaultPoint(NamedTuple):
    """A place between two statements of a transaction where a test can hold it up (`pgflow.faults`)."""

    name: str


class _BoundStatement(NamedTuple):
    """A statement as it is sent."""

    text: bytes
    digest: bytes
    values: Sequence[bytes | None]
    format: Format


_prepared: WeakKeyDictionary[AsyncConnection | Connection, dict[bytes, bytes]] = WeakKeyDictionary()
"""The texts of the statements that are prepared on a connection, and the names that they have there."""

_number = count()
"""Counts the names: one that is no longer used may still be taken on the server."""

ROWS_AT_ONCE = 1_000
"""The rows of a `BulkStatement` that are handed on at a time."""

_UNPREPARED = (b"26000", b"0A000")
"""SQLSTATEs that say that the server no longer knows a prepared statement, or that its plan no longer fits a changed
table.
"""

_FINE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


async def flush(connection: AsyncConnection, *statements: Statement, until: float | None = None) -> list[Answer]:
    """Execute statements one after the other, each in a transaction of its own, all sent at once.

    Args:
        connection: One in autocommit mode, outside of a transaction.
        until: The monotonic time by which all answers must be there; the connection's own patience with a silent server
            holds besides.

    Returns:
        The answer to each; one that failed stops none of the others.

    Raises:
        psycopg.OperationalError: The connection broke, or no answer came (`NoAnswer`), and is closed: what became of
            the statements is not known.
        psycopg.DataError: A text holds a character that cannot be stored; nothing was sent.

    Example:
        rows, _ = await flush(connection, (write, parameters), (notify, {"channel": "done", "payloads": ["7"]}))
    """
    prepared, flushes = _names_on(connection), _apart(connection, statements)
    results: list[list[PGresult]] = []
    async with connection.lock:
        try:
            for transactions in flushes:
                results += await _wait(connection, _exchange(connection.pgconn, prepared, transactions), until)
            check_replicated(connection)
        except BaseException:
            await connection.close()  # answers may be on their way that nobody waits for any more
            raise
    return _read(results)


def flush_blocking(connection: Connection, *statements: Statement, until: float | None = None) -> list[Answer]:
    """As `flush`, on a synchronous connection."""
    prepared, flushes = _names_on(connection), _apart(connection, statements)
    results: list[list[PGresult]] = []
    with connection.lock:
        try:
            for transactions in flushes:
                exchange = _exchange(connection.pgconn, prepared, transactions)
                results += connection.wait(exchange if until is None else in_time(exchange, until))
            check_replicated(connection)
        except BaseException:
            connection.close()
            raise
    return _read(results)


async def transact(
    connection: AsyncConnection, timeout: int, *statements: Statement | BulkStatement | FaultPoint
) -> list[Rows]:
    """Execute statements in one transaction, all sent at once, each under a snapshot of its own.

    Args:
        connection: One in autocommit mode, outside of a transaction.
        timeout: Milliseconds that a statement may take, set within the transaction.
        statements: What to execute. Where a test has installed any hook, the transaction stops at each `FaultPoint`
            until the server has executed what stands before it.

    Returns:
        The rows of each statement; of a `BulkStatement`, none.

    Raises:
        psycopg.Error: A statement failed, and nothing has come of any. If the connection broke, it is closed, and what
            became of the transaction is not known.
        psycopg.DataError: A text holds a character that cannot be stored; nothing was sent.

    Example:
        pause = FaultPoint("claims.before_read")
        taken, read = await transact(connection, 10_000, (claim, parameters), pause, (held, parameters))
    """
    prepared = _names_on(connection)
    parts: list[tuple[str | None, list[Statement | BulkStatement]]] = [(None, [pooler.opening(connection, timeout)])]
    for each in statements:
        if not isinstance(each, FaultPoint):
            parts[-1][1].append(each)
        elif faults.watched():
            parts.append((each.name, []))
    bound = [_bound(connection, part) for _, part in parts]
    results: list[PGresult] = []
    async with connection.lock:
        try:
            for number, (point, _) in enumerate(parts):
                if point is not None:
                    await faults.reach(point)
                first, last = number == 0, number + 1 == len(parts)
                answers = await _wait(
                    connection, _exchange(connection.pgconn, prepared, [bound[number]], begins=first, ends=last)
                )
                results += answers[0]
            check_replicated(connection)
        except BaseException:
            await connection.close()
            raise
    reader = AnswerReader()
    found: list[Rows] = []
    for statement, result in zip((each for _, part in parts for each in part), results, strict=True):
        if result.status not in _FINE:
            raise errors.error_from_result(result)
        if isinstance(statement, BulkStatement):
            for first_row in range(0, result.ntuples, ROWS_AT_ONCE):
                statement.take(reader.rows(result, first_row, min(first_row + ROWS_AT_ONCE, result.ntuples)))
            found.append([])
        else:
            found.append(reader.rows(result))
    return found[1:]


def rows_of(answer: Answer) -> list[tuple[Any, ...]]:
    """The rows of a statement.

    Raises:
        psycopg.Error: it failed.
    """
    if isinstance(answer, psycopg.Error):
        raise answer
    return answer


def log_lost_hints(answers: Iterable[Answer]) -> None:
    """Log hints that failed. What they announce has been written, and polling finds it."""
    for answer in answers:
        if isinstance(answer, psycopg.Error):
            _log.warning("a hint was lost, polling finds the work that it announced: %s", answer)


def _names_on(connection: AsyncConnection | Connection) -> dict[bytes, bytes] | None:
    """The names of what is prepared on a connection; None: nothing can be."""
    return None if pooler.is_shared(connection) else _prepared.setdefault(connection, {})


def _apart(
    connection: AsyncConnection | Connection, statements: Sequence[Statement]
) -> list[list[list[_BoundStatement]]]:
    """A transaction for each statement, grouped as they leave: in one flush.

    Through a pooler each leaves in a flush of its own: if the answer to one arrives while the next is on its way, the
    pooler may tear that one apart between two sessions.
    """
    bound = _bound(connection, statements)
    settings = pooler.settings_of(connection)
    if settings is None:
        return [[[each] for each in bound]]
    (before,) = _bound(connection, [(settings, {})])
    return [[[before, each]] for each in bound]


def _bound(
    connection: AsyncConnection | Connection, statements: Iterable[Statement | BulkStatement]
) -> list[_BoundStatement]:
    bound: list[_BoundStatement] = []
    lacking = encodings.noted(connection)
    for statement in statements:
        text, digest, order = _numbered(statement[0])
        parameters = statement[1] if lacking is None else encodings.in_encoding(lacking, statement[1])
        form = Format.BINARY if isinstance(statement, BulkStatement) else Format.TEXT
        bound.append(_BoundStatement(text, digest, [text_of(parameters[name]) for name in order], form))
    return bound


def _exchange(
    pgconn: PGconn,
    prepared: dict[bytes, bytes] | None,
    transactions: Sequence[Sequence[_BoundStatement]],
    *,
    begins: bool = True,
    ends: bool = True,
) -> PQGen[list[list[PGresult]]]:
    """Send everything, then read all answers; gives one for each statement.

    Args:
        prepared: The names of what is prepared; None: nothing is, and nothing is to be.
        transactions: Their statements.
        begins: Whether the first transaction begins here.
        ends: Whether the last one ends here.
    """
    if begins:
        pgconn.enter_pipeline_mode()
    made: dict[bytes, bytes] = {}
    for place, statements in enumerate(transactions, 1):
        for text, digest, values, form in statements:
            if prepared is None:
                pgconn.send_query_params(text, values, result_format=form)
                continue
            name = prepared.get(text) or made.get(text)
            if name is None:
                name = made[text] = b"pgflow_%s_%d" % (digest, next(_number))
                pgconn.send_prepare(name, text)
            pgconn.send_query_prepared(name, values, result_format=form)
        if ends or place < len(transactions):
            pgconn.pipeline_sync()
        else:
            pgconn.send_flush_request()
    yield from generators.send(pgconn)
    found: list[list[PGresult]] = []
    for place, statements in enumerate(transactions, 1):
        answers: list[PGresult] = []
        for text, *_ in statements:
            if prepared is not None and (fresh := made.pop(text, None)) is not None:
                preparing = yield from _next(pgconn)
                answer = yield from _next(pgconn)
                if preparing.status == ExecStatus.COMMAND_OK:
                    prepared[text] = fresh
                else:
                    answer = preparing  # the other one only says that this one failed
            else:
                answer = yield from _next(pgconn)
                if (
                    prepared
                    and answer.status not in _FINE
                    and answer.error_field(DiagnosticField.SQLSTATE) in _UNPREPARED
                ):
                    prepared.clear()  # the next attempt prepares them again
            answers.append(answer)
        found.append(answers)
        if ends or place < len(transactions):
            yield from _next(pgconn)  # the synchronisation point
    if ends:
        pgconn.exit_pipeline_mode()
    return found


def _next(pgconn: PGconn) -> PQGen[PGresult]:
    results: list[PGresult] = yield from generators.fetch_many(pgconn)
    if not results or (results[0].status == ExecStatus.FATAL_ERROR and pgconn.status == ConnStatus.BAD):
        raise psycopg.OperationalError(
            f"the connection broke before all answers were there: {pgconn.get_error_message()}"
        )
    return results[0]


async def _wait(connection: AsyncConnection, exchange: PQGen[T], until: float | None = None) -> T:
    """Drive an exchange by the callbacks of the event loop: the task that waits is resumed once, when all answers are
    there or none comes.
    """
    try:
        wanted = next(exchange)
    except StopIteration as end:
        found: T = end.value
        return found
    loop = asyncio.get_running_loop()
    socket = connection.pgconn.socket
    ended: asyncio.Future[T] = loop.create_future()
    watch = (
        connection.watch if isinstance(connection, EngineAsyncConnection) and connection.silence is not None else None
    )
    timer: asyncio.TimerHandle | None = None

    def give_up(error: Exception) -> None:
        if not ended.done():
            watch_no_more()
            ended.set_exception(error)

    def go_on(ready: Ready) -> None:
        nonlocal wanted
        if ended.done():
            return
        before = wanted
        if watch is not None and ready & Ready.R:
            watch.heard = time.monotonic()
        try:
            wanted = exchange.send(ready)
        except StopIteration as end:
            watch_no_more()
            ended.set_result(end.value)
        except Exception as error:
            watch_no_more()
            ended.set_exception(error)
        else:
            if (before ^ wanted) & Wait.W:
                watch_writing()

    def watch_writing() -> None:
        if wanted & Wait.W:
            loop.add_writer(socket, go_on, Ready.W)  # noqa: F821 — it is gone only when nothing is awaited any more
        else:
            loop.remove_writer(socket)

    def watch_no_more() -> None:
        """Stop watching at once: if the connection broke, libpq has closed the socket, and its number may soon belong
        to something else.
        """
        loop.remove_reader(socket)
        loop.remove_writer(socket)

    loop.add_reader(socket, go_on, Ready.R)
    if wanted & Wait.W:
        watch_writing()
    if watch is not None:
        watch.begin(loop, give_up)
    if until is not None:
        timer = loop.call_later(until - time.monotonic(), give_up, too_late())
    try:
        return await ended
    except asyncio.CancelledError:
        if not ended.cancelled():
            raise  # the answers had come already
        # The server gets a moment to end it, since the caller may go on to free what it has locked. Cancelling would be
        # faster but not safe: a commit that waits for a standby is then reported as done.
        ended = loop.create_future()
        try:
            with suppress(psycopg.Error, OSError):
                async with asyncio.timeout(GIVE_UP):
                    await ended
        finally:
            if not ended.done() or ended.cancelled():
                watch_no_more()
        raise
    finally:
        if timer is not None:
            timer.cancel()
        if watch is not None:
            watch.end()
        del go_on  # it and what it calls refer to each other, and to the answers


def _read(results: Sequence[Sequence[PGresult]]) -> list[Answer]:
    """The answer to the last statement of each transaction."""
    reader = AnswerReader()
    answers: list[Answer] = []
    for *_, result in results:
        if result.status in _FINE:
            answers.append(reader.rows(result))
        else:
            answers.append(errors.error_from_result(result))
    return answers


@cache
def _numbered(sql: bytes) -> tuple[bytes, bytes, tuple[str, ...]]:
    """A statement with numbered parameters, a digest of it, and its parameters in order.

    Its name is made from the digest, so that even in somebody else's session that name never stands for another
    statement.
    """
    order: dict[str, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return b"$%d" % order.setdefault(found[1].decode(), len(order) + 1)

    text = re.sub(rb"%\((\w+)\)s", number, sql).replace(b"%%", b"%")
    return text, blake2b(text, digest_size=8).hexdigest().encode(), tuple(order)
