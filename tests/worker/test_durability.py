"""`synchronous_commit = off` on the role or the database: what pgflow acknowledges is durable all the same. About 3
seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg
import pytest

import pgflow
from pgflow.store.database.connections import Database
from pgflow.store.database.pipeline import flush, flush_blocking, rows_of
from tests.pooler import pooler
from tests.store.scene import Scene

ASKED = b"SELECT current_setting('synchronous_commit')"


@pgflow.activity(transactional=True)
async def booking(ctx: pgflow.ActivityContext) -> None:
    await ctx.connection.execute("SET synchronous_commit = off")
    await ctx.connection.execute("INSERT INTO public.effects DEFAULT VALUES")


@pgflow.activity(transactional=True)
def booking_in_a_thread(ctx: pgflow.ActivityContext) -> None:
    ctx.connection.execute("INSERT INTO public.effects DEFAULT VALUES")


@pgflow.workflow
async def both(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(booking)
    await ctx.activity(booking_in_a_thread)


@pytest.fixture
def careless(scene: Scene) -> Iterator[Scene]:
    """A database whose commits do not wait for the disk unless they ask for it."""
    name = psycopg.conninfo.conninfo_to_dict(scene.database.dsn)["dbname"]
    scene.do(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    yield scene


async def test_the_sessions_of_the_engine(careless: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Its own, and through a pooler, and told once."""
    caplog.set_level(logging.WARNING)
    with pooler(careless.database.dsn) as between:
        for database in (careless.database, Database(between.dsn)):
            connection = await database.connect("test")
            assert rows_of((await flush(connection, (ASKED, {})))[0]) == [("on",)]
            await connection.close()
            with database.connect_blocking("test") as blocking:
                assert rows_of(flush_blocking(blocking, (ASKED, {}))[0]) == [("on",)]
    assert caplog.text.count("synchronous_commit is off") == 1


@pytest.mark.parametrize("given", ["local", "remote_write", "remote_apply"])
async def test_other_choices_stay(scene: Scene, given: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(scene.database.dsn)["dbname"]
    scene.do(f'ALTER DATABASE "{name}" SET synchronous_commit = {given}')
    connection = await scene.database.connect("test")
    assert rows_of((await flush(connection, (ASKED, {})))[0]) == [(given,)]
    await connection.close()


async def test_transactional_activities(careless: Scene) -> None:
    """Their commits, whatever they have set themselves; the next one finds its session as it was."""
    careless.do("CREATE TABLE public.effects (setting text)")
    careless.do(
        "CREATE FUNCTION public.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE public.effects SET "
        "setting = coalesce(setting, current_setting('synchronous_commit')); RETURN NULL; END $$"
    )
    careless.do(
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON public.effects DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION public.at_commit()"
    )
    async with pgflow.Client(careless.database.dsn) as client, pgflow.Worker(careless.database.dsn, workflows=[both]):
        await (await client.dispatch(both)).output(30)
    assert careless.all("SELECT setting FROM public.effects") == ["on", "on"]
