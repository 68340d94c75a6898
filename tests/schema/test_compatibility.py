"""Code and schema that do not go together say so, and what to do."""

from __future__ import annotations

import psycopg
import pytest

import pgflow
from pgflow.errors import PgflowError, SchemaOutdated
from pgflow.store.schema import compatibility
from pgflow.store.schema.compatibility import DatabaseState, check, check_async, check_blocking
from pgflow.store.schema.versions import NEEDS, SCHEMA_VERSION

FITS = DatabaseState(server=150000, migrated=True)


@pgflow.workflow
async def greet(ctx: pgflow.WorkflowContext) -> None:
    """Does nothing."""


@pytest.mark.parametrize(
    ("found", "info", "said"),
    [
        (DatabaseState(149999, True), (1, 1), "the server is PostgreSQL 14; pgflow needs 15 or later"),
        (DatabaseState(90600, False), None, "the server is PostgreSQL 9; pgflow needs 15 or later"),
        (DatabaseState(180000, False), None, 'no pgflow schema "flows". Run `pgflow db upgrade --schema flows`'),
        (FITS, None, 'no pgflow schema "flows"'),
        (FITS, (NEEDS - 1, 0), f"is of version {NEEDS - 1}; this code needs at least {NEEDS}. Run `pgflow db upgrade`"),
        (FITS, (SCHEMA_VERSION + 5, SCHEMA_VERSION + 1), "too new: .*Deploy newer code"),
    ],
)
def test_what_does_not_fit(found: DatabaseState, info: tuple[int, int] | None, said: str) -> None:
    with pytest.raises(PgflowError, match=said) as caught:
        check(found, info, "flows")
    assert isinstance(caught.value, SchemaOutdated) is (found.server >= 150000)


@pytest.mark.parametrize("info", [(SCHEMA_VERSION, SCHEMA_VERSION), (NEEDS, 0), (SCHEMA_VERSION + 5, SCHEMA_VERSION)])
def test_what_fits(info: tuple[int, int]) -> None:
    """Also yesterday's code on tomorrow's schema, unless that schema says otherwise."""
    check(FITS, info, "flows")


async def told(dsn: str, schema: str = "pgflow") -> str | None:
    """What everybody says of a database: both checks, both clients and a worker, all the same."""
    messages: set[str | None] = set()
    with psycopg.connect(dsn) as blocking:
        try:
            check_blocking(blocking, schema)
            messages.add(None)
        except PgflowError as error:
            messages.add(str(error))
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        try:
            await check_async(connection, schema)
            messages.add(None)
        except PgflowError as error:
            messages.add(str(error))
    try:
        async with pgflow.Client(dsn, schema):
            messages.add(None)
    except PgflowError as error:
        messages.add(str(error))
    try:
        with pgflow.SyncClient(dsn, schema):
            messages.add(None)
    except PgflowError as error:
        messages.add(str(error))
    try:
        async with pgflow.Worker(dsn, workflows=[greet], schema=schema):
            messages.add(None)
    except PgflowError as error:
        messages.add(str(error))
    (message,) = messages
    return message


def change(dsn: str, query: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(query.encode())


async def test_a_database_that_is_not_migrated(database_dsn: str) -> None:
    said = await told(database_dsn, "flows")
    assert said is not None and "Run `pgflow db upgrade --schema flows`" in said


async def test_a_schema_that_is_too_old_or_too_new(dsn: str) -> None:
    assert await told(dsn) is None
    change(dsn, "UPDATE pgflow.schema_info SET version = 0")
    said = await told(dsn)
    assert said is not None and f"is of version 0; this code needs at least {NEEDS}. Run `pgflow db upgrade`" in said
    change(dsn, f"UPDATE pgflow.schema_info SET version = {SCHEMA_VERSION + 2}, compatible_from = {SCHEMA_VERSION + 1}")
    said = await told(dsn)
    assert (
        said is not None
        and f"is too new: it is of version {SCHEMA_VERSION + 2} and for code from version {SCHEMA_VERSION + 1} on"
        in said
    )
    change(dsn, f"UPDATE pgflow.schema_info SET version = {SCHEMA_VERSION + 5}, compatible_from = {SCHEMA_VERSION}")
    assert await told(dsn) is None


async def test_a_server_that_is_too_old(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility, "OLDEST_SERVER", 990000)
    said = await told(dsn)
    assert said is not None and "pgflow needs 99 or later" in said
