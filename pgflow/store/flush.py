"""Transactions that leave in one flush, by the shortest way there is: prepared statements, sent one behind the other.

A cursor for each statement costs more than the statement itself when that is a small one. Here statements are prepared once a
connection, parameters are text, and all answers are read together. libpq's pipelines end a transaction at each synchronisation
point, so that a hint can leave right behind the commit that it tells of: outside of its transaction, and without a round trip of its
own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors, generators
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from pgflow.store.arrays import text_of
from pgflow.store.connections import AsyncConnection, Connection

_log = logging.getLogger("pgflow.store")

Statement = tuple[bytes, Mapping[str, Any]]
"""SQL with `%(name)s` where its parameters stand, all of them cast to their types; and the parameters."""

_Bound = tuple[bytes, Sequence[bytes | None]]

Answer = list[tuple[Any, ...]] | psycopg.Error
"""The rows of a statement, or why there are none."""


@dataclass(slots=True)
class _Prepared:
    """What is prepared on one connection."""

    names: dict[bytes, bytes] = field(default_factory=dict)
    made: int = 0


_prepared: WeakKeyDictionary[AsyncConnection | Connection, _Prepared] = WeakKeyDictionary()


async def flush(connection: AsyncConnection, *statements: Statement) -> list[Answer]:
    """Execute statements one after the other, each in a transaction of its own, all sent at once.

    Args:
        connection: One that commits by itself and is in no transaction.

    Returns:
        The answer to each; one that failed stops none of the others.

    Raises:
        psycopg.OperationalError: The connection broke, and is closed: what became of the statements is not known.
        psycopg.DataError: A text holds a NUL character; nothing was sent.

    Example:
        rows, _ = await flush(connection, (write, parameters), (notify, {"channel": "done", "payloads": ["7"]}))
    """
    prepared, bound = _prepared.setdefault(connection, _Prepared()), _bound(statements)
    async with connection.lock:
        try:
            results = await connection.wait(_exchange(connection.pgconn, prepared, bound))
        except BaseException:
            await connection.close()  # answers may be on their way that nobody waits for any more
            raise
    return _read(connection, results)


def flush_blocking(connection: Connection, *statements: Statement) -> list[Answer]:
    """As `flush`, on a synchronous connection."""
    prepared, bound = _prepared.setdefault(connection, _Prepared()), _bound(statements)
    with connection.lock:
        try:
            results = connection.wait(_exchange(connection.pgconn, prepared, bound))
        except BaseException:
            connection.close()
            raise
    return _read(connection, results)


def rows_of(answer: Answer) -> list[tuple[Any, ...]]:
    """The rows of a statement.

    Raises:
        psycopg.Error: it failed.
    """
    if isinstance(answer, psycopg.Error):
        raise answer
    return answer


def tell_of_lost_hints(answers: Iterable[Answer]) -> None:
    """Log hints that failed. What they tell of has been written, and polling finds it."""
    for answer in answers:
        if isinstance(answer, psycopg.Error):
            _log.warning("a hint was lost, polling finds what it told of: %s", answer)


def _bound(statements: Sequence[Statement]) -> list[_Bound]:
    bound: list[_Bound] = []
    for sql, parameters in statements:
        text, order = _numbered(sql)
        bound.append((text, [text_of(parameters[name]) for name in order]))
    return bound


def _exchange(pgconn: PGconn, prepared: _Prepared, statements: Sequence[_Bound]) -> PQGen[list[PGresult]]:
    """Send everything, then read all answers; gives one for each statement."""
    pgconn.enter_pipeline_mode()
    fresh: list[bytes | None] = []
    for text, values in statements:
        name = prepared.names.get(text)
        fresh.append(None if name else text)
        if name is None:
            name = prepared.names[text] = b"pgflow_%d" % prepared.made
            prepared.made += 1
            pgconn.send_prepare(name, text)
        pgconn.send_query_prepared(name, values)
        pgconn.pipeline_sync()
    yield from generators.send(pgconn)
    answers: list[PGresult] = []
    for text_made in fresh:
        made = (yield from _next(pgconn)) if text_made is not None else None
        answer = yield from _next(pgconn)
        if text_made is not None and made is not None and made.status != ExecStatus.COMMAND_OK:
            del prepared.names[text_made]
            answer = made  # the other one only says that this one failed
        answers.append(answer)
        yield from _next(pgconn)  # the synchronisation point
    pgconn.exit_pipeline_mode()
    return answers


def _next(pgconn: PGconn) -> PQGen[PGresult]:
    results: list[PGresult] = yield from generators.fetch_many(pgconn)
    if not results or (results[0].status == ExecStatus.FATAL_ERROR and pgconn.status == ConnStatus.BAD):
        raise psycopg.OperationalError(f"the connection broke before all answers were there: {pgconn.get_error_message()}")
    return results[0]


def _read(connection: AsyncConnection | Connection, results: Sequence[PGresult]) -> list[Answer]:
    transformer = Transformer(connection)
    answers: list[Answer] = []
    for result in results:
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            transformer.set_pgresult(result)
            answers.append(transformer.load_rows(0, result.ntuples, tuple))
        else:
            answers.append(errors.error_from_result(result))
    return answers


@cache
def _numbered(sql: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A statement with numbered parameters, and their names in order."""
    order: dict[str, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return b"$%d" % order.setdefault(found[1].decode(), len(order) + 1)

    text = re.sub(rb"%\((\w+)\)s", number, sql).replace(b"%%", b"%")
    return text, tuple(order)
