"""Surroundings change nothing: environment, role, database, and the adapters that the application has registered."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row, scalar_row
from psycopg.types.json import JsonbDumper, set_json_dumps, set_json_loads
from psycopg.types.numeric import FloatLoader
from psycopg.types.string import TextLoader

import pgflow
from pgflow.errors import PgflowError
from pgflow.store.database.connections import Database
from tests import databases
from tests.pooler import pooler

HOSTILE = {
    "timezone": "Asia/Tokyo",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "client_encoding": "LATIN1",
    "search_path": "nowhere",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "gin_fuzzy_search_limit": "1",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "700ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1s",
    "enable_indexscan": "off",
    "plan_cache_mode": "force_custom_plan",
}
"""What a company may set for a role or a database."""


@pgflow.signal
@dataclass
class Go:
    by: int


@pgflow.activity
async def double(ctx: pgflow.ActivityContext, number: float) -> float:
    return number * 2


@pgflow.activity(transactional=True)
def whose(ctx: pgflow.ActivityContext) -> str:
    row = ctx.connection.execute("SELECT current_user::text").fetchone()
    return str(row[0])


@pgflow.workflow
async def child(ctx: pgflow.WorkflowContext) -> int:
    return 7


@pgflow.workflow
async def everything(ctx: pgflow.WorkflowContext, number: float) -> list[Any]:
    await ctx.activity(whose)
    user = await ctx.activity(whose)  # on the same connection, which has been cleaned

    async def turn(ctx: pgflow.WorkflowContext, left: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        return pgflow.Break(left) if left == 0 else pgflow.Continue(left - 1)

    await ctx.loop(turn, 3)
    began = ctx.now()
    await ctx.sleep(0.2)
    go = await ctx.listen(Go, timeout=timedelta(seconds=60))
    handle = await ctx.dispatch(child, tags={"of": "everything"}, unique=True)
    assert go is not None
    passed = (ctx.now() - began).total_seconds()
    return [
        await ctx.activity(double, number),
        await handle.output(),
        go.by,
        user,
        ctx.now().tzname(),
        0.2 <= passed < 60,
    ]


async def go_through(dsn: str, user: str | None = None) -> None:
    """Everything that a worker and a client do, with a takeover by replay in the middle."""
    workflows: list[pgflow.Workflow[Any, Any]] = [everything, child]
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=workflows, transactions=1, cached=0):
            handle = await client.dispatch(everything, 0.1 + 0.2, tags={"a": "b", "n": None})
            async with asyncio.timeout(30):
                while (await handle.info()).waiting_for != ["go"]:
                    await asyncio.sleep(0.01)
        await client.signal(Go(1), workflow=everything, tags={"a": "b"})
        async with pgflow.Worker(dsn, workflows=workflows, transactions=1):
            number, of_child, by, found, zone, slept = await handle.output(30)
        assert (number, of_child, by, zone, slept) == (0.6000000000000001, 7, 1, "UTC", True)
        assert user in (None, found)
        (info,) = await client.list(tags={"n": None})
        assert info.tags == {"a": "b", "n": None} and info.created_at.tzname() == "UTC"
        assert [event.kind for event in await client.history(handle.id)][:2] == ["activity", "activity"]


@pytest.fixture
def role(dsn: str) -> Iterator[str]:
    """A role that may do everything, and that the role of the tests may take."""
    name = f"app_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD 'app'").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.mark.parametrize("kind", ["ROLE", "DATABASE"])
async def test_what_a_role_or_a_database_is_set_to(dsn: str, role: str, kind: str) -> None:
    named = sql.Identifier(role if kind == "ROLE" else databases.name_of(dsn))
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, value in HOSTILE.items():
            connection.execute(
                sql.SQL("ALTER {} {} SET {} = {}").format(sql.SQL(kind), named, sql.Identifier(name), value)
            )
    pgflow.migrate(make_conninfo(dsn, user=role, password="app"), "other")
    await go_through(make_conninfo(dsn, user=role, password="app"))


@pytest.mark.parametrize(
    "variables",
    [
        {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German", "PGCLIENTENCODING": "LATIN1", "PGGEQO": "off"},
        {
            "PGOPTIONS": "-c timezone=Asia/Tokyo -c datestyle=SQL -c intervalstyle=iso_8601 -c "
            "default_transaction_isolation=serializable"
        },
    ],
)
async def test_what_the_environment_says(dsn: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    await go_through(dsn)


@pytest.mark.parametrize("way", ["PGOPTIONS", "DSN", "service"])
async def test_options_of_the_start_are_heeded(
    database_dsn: str, role: str, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Whoever says that sessions take a role finds all sessions in that role: workers', clients' and migrations'."""
    options = f"-c role={role}"
    dsn = database_dsn
    if way == "PGOPTIONS":
        monkeypatch.setenv("PGOPTIONS", options)
    elif way == "DSN":
        dsn = make_conninfo(dsn, options=options)
    else:
        (tmp_path / "services").write_text(f"[shop]\noptions={options}\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        dsn = make_conninfo(dsn, service="shop")
    pgflow.migrate(dsn)
    await go_through(dsn, role)
    monkeypatch.delenv("PGOPTIONS", raising=False)
    with psycopg.connect(database_dsn) as connection:
        owners = connection.execute(
            "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'pgflow'"
        ).fetchall()
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
    assert owners == [(role,)]


async def test_a_pooler_that_hands_out_sessions_of_another_kind(dsn: str, role: str) -> None:
    """Each transaction sets what it needs; how a transaction begins cannot be set in time, and is an error that says
    so.
    """
    name = sql.Identifier(role)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for setting in (
            "timezone",
            "datestyle",
            "intervalstyle",
            "bytea_output",
            "extra_float_digits",
            "search_path",
            "array_nulls",
        ):
            connection.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.Identifier(setting), HOSTILE[setting])
            )
    with pooler(make_conninfo(dsn, user=role, password="app")) as between:
        await go_through(between.dsn)
        between.stop()
        assert between.refused == 0
        for session in between.sessions:
            left = session.connection.execute("SELECT name FROM pg_settings WHERE source = 'session'").fetchall()
            assert left == []
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} SET default_transaction_isolation = 'repeatable read'").format(name))
    with pooler(make_conninfo(dsn, user=role, password="app")) as between:
        with pytest.raises(PgflowError, match=r"'repeatable read'.*ALTER ROLE"):
            await Database(between.dsn).connect("test")


REGISTERED: dict[str, Callable[[Any], None]] = {
    "uuid as text": lambda adapters: adapters.register_loader("uuid", TextLoader),
    "timestamptz as text": lambda adapters: adapters.register_loader("timestamptz", TextLoader),
    "int8 as float": lambda adapters: adapters.register_loader("int8", FloatLoader),
    "int4 as float": lambda adapters: adapters.register_loader("int4", FloatLoader),
    "bool as text": lambda adapters: adapters.register_loader("bool", TextLoader),
    "lists as jsonb": lambda adapters: adapters.register_dumper(list, JsonbDumper),
    "texts as jsonb": lambda adapters: adapters.register_dumper(str, JsonbDumper),
    "ints as jsonb": lambda adapters: adapters.register_dumper(int, JsonbDumper),
}
"""What an application may have registered."""


def test_adapters_that_hold_for_the_whole_process(dsn: str) -> None:
    """They are registered before pgflow is imported; another process, since it is for good."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.worker.test_surroundings"],
        env={**os.environ, "PGFLOW_DATABASE_URL": dsn},
        capture_output=True,
    )
    assert found.returncode == 0, found.stderr.decode()


@asynccontextmanager
async def caller(kind: str, dsn: str) -> AsyncIterator[Any]:
    """A connection or session of the caller's."""
    if kind == "async":
        async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row, prepare_threshold=0) as found:
            yield found
    elif kind == "sync":
        with psycopg.connect(dsn, row_factory=scalar_row, cursor_factory=psycopg.ClientCursor) as blocking:
            yield blocking
    elif kind == "autocommit":
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as committing, committing.transaction():
            yield committing
    elif kind == "pipeline":
        with psycopg.connect(dsn) as piping, piping.pipeline():
            yield piping
    else:
        engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
        with engine.begin() as connection:
            yield connection
        engine.dispose()


@pytest.mark.parametrize("kind", ["async", "sync", "autocommit", "pipeline", "sqlalchemy"])
@pytest.mark.parametrize("encoding", ["utf8", "latin1", "sql_ascii"])
async def test_a_connection_of_the_callers_may_be_as_it_is(dsn: str, kind: str, encoding: str) -> None:
    """And is the same afterwards."""
    if (kind, encoding) == ("sqlalchemy", "sql_ascii"):
        encoding = "utf8"  # SQLAlchemy itself cannot read what its server says of itself
    id = uuid.uuid4()
    options = (
        "-c datestyle=German -c timezone=Asia/Tokyo -c bytea_output=escape -c search_path=nowhere -c "
        "intervalstyle=sql_standard"
    )
    async with pgflow.Client(dsn) as client:
        text = "12 € 漢 😀"
        async with caller(kind, make_conninfo(dsn, client_encoding=encoding, options=options)) as connection:
            behind: Any = connection if kind != "sqlalchemy" else connection.connection.driver_connection
            for register in REGISTERED.values():
                register(behind.adapters)
            set_json_loads(lambda text: text, behind.adapters)
            set_json_dumps(lambda value: "0", behind.adapters)
            before = (
                behind.row_factory,
                behind.cursor_factory,
                behind.prepare_threshold,
                dict(behind.adapters._dumpers),
            )
            one = await client.dispatch("job", id=id, text=text, tags={"é": "ü", "n": 1}, connection=connection)
            two = await client.dispatch("job", id=id, text=text, connection=connection)
            many = await client.dispatch_many("job", [{"text": text}] * 3, connection=connection)
            sent = await client.signal(Go(2), to=one.id, connection=connection)
            assert await client.signal(Go(2), to=uuid.uuid4(), missing_ok=True, connection=connection) is None
            assert before == (
                behind.row_factory,
                behind.cursor_factory,
                behind.prepare_threshold,
                dict(behind.adapters._dumpers),
            )
        assert one.id == two.id == id and isinstance(sent, uuid.UUID)
        assert {(await handle.info()).input["text"] for handle in [one, *many]} == {text}
        assert (await one.info()).tags == {"é": "ü", "n": 1}


async def test_a_connection_that_cannot_carry_a_name(dsn: str) -> None:
    """It is said before anything is sent: the caller's transaction goes on."""
    async with pgflow.Client(dsn) as client:
        async with await psycopg.AsyncConnection.connect(dsn, client_encoding="latin1") as connection:
            with pytest.raises(pgflow.SerializationError, match="LATIN1.* has no '€'"):
                await client.dispatch("12 €", connection=connection)
            handle = await client.dispatch("12", connection=connection)
        assert (await handle.info()).name == "12"


if __name__ == "__main__":
    for each in REGISTERED.values():
        each(psycopg.adapters)
    set_json_loads(lambda text: text)
    set_json_dumps(lambda value: "0")
    for name in [name for name in sys.modules if name.split(".")[0] == "pgflow"]:
        del sys.modules[name]
    import pgflow.store.database.adapters as again

    assert again.ADAPTERS.get_loader(20, psycopg.pq.Format.TEXT) is not FloatLoader
    asyncio.run(go_through(os.environ["PGFLOW_DATABASE_URL"]))
