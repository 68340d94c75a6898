"""Databases whose encoding lacks most characters: payloads may have any character, names and tags only those of the
encoding, and nothing runs for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow.store.database.encodings import ArrayText, UnstorableText, escaped_json, in_encoding
from pgflow.store.schema.migrations import current, newest
from tests import databases

ANY = "12 € 漢字 😀 \x7f é"
ENCODINGS = ["LATIN1", "SQL_ASCII", "EUC_JP", "WIN1252", "KOI8R", "EUC_TW"]


@pgflow.signal
@dataclass
class Told:
    text: str


@pgflow.message
@dataclass
class Said:
    text: str


@pgflow.activity
async def echo(ctx: pgflow.ActivityContext, text: str) -> dict[str, str]:
    ctx.state["kept"] = text
    if ctx.attempt == 1:
        raise ValueError(text)
    return {text: text}


@pgflow.activity(transactional=True)
def write(ctx: pgflow.ActivityContext, text: str) -> str:
    ctx.state["written"] = text
    return text


@pgflow.workflow
async def child(ctx: pgflow.WorkflowContext, text: str) -> str:
    raise ValueError(text)


@pgflow.workflow
async def everything(ctx: pgflow.WorkflowContext, text: str) -> list[Any]:
    async def turn(ctx: pgflow.WorkflowContext, left: str) -> pgflow.Continue[str] | pgflow.Break[str]:
        await ctx.activity(write, left)
        return pgflow.Continue(left[1:]) if len(left) > 1 else pgflow.Break(left)

    found = await ctx.activity(echo.options(retry=pgflow.RetryPolicy(initial=0.01)), text)
    last = await ctx.loop(turn, text)
    told = await ctx.listen(Told)
    await ctx.publish(Said(text))
    handle = await ctx.dispatch(child, text)
    try:
        await handle.output()
    except pgflow.WorkflowFailed as error:
        failed = error.error_message
    assert told is not None
    return [found, last, told.text, failed]


@pgflow.workflow
async def hopeless(ctx: pgflow.WorkflowContext, kind: str) -> None:
    if kind == "activity":
        await ctx.activity(echo.options(name="€ 漢"), "x")
    else:
        await ctx.dispatch(child, "x", tags={"€ 漢": "😀"}, unique=kind == "unique")


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [everything, child, hopeless]


@pytest.fixture(params=ENCODINGS)
def encoded(request: pytest.FixtureRequest, server_dsn: str) -> Iterator[tuple[str, str]]:
    """A migrated database of an encoding, and the encoding."""
    with databases.database(server_dsn, encoding=request.param) as dsn:
        pgflow.migrate(dsn)
        assert current(dsn) == newest()
        yield dsn, request.param


async def test_payloads_may_have_any_character(encoded: tuple[str, str]) -> None:
    dsn, encoding = encoded
    async with (
        pgflow.Client(dsn) as client,
        pgflow.Worker(dsn, workflows=WORKFLOWS, cached=0),
        client.subscribe(Said) as said,
    ):
        handle = await client.dispatch(everything, ANY)
        async with await psycopg.AsyncConnection.connect(dsn, client_encoding="utf8") as connection:
            other = await client.dispatch(everything, ANY, connection=connection)
            await client.signal(Told(ANY), to=other.id, connection=connection)
        await client.signal(Told(ANY), to=handle.id)
        async with asyncio.timeout(30):
            assert (await anext(said)).text == ANY
        for each in (handle, other):
            assert await each.output(30) == [{ANY: ANY}, ANY[-1], ANY, ANY]
        assert (await handle.info()).input == {"text": ANY}
        errors = [
            event for event in await client.history(handle.id) if event.kind == "activity" and event.attempts == 2
        ]
        assert [event.output for event in errors] == [{ANY: ANY}]
    with pgflow.SyncClient(dsn) as blocking:
        assert blocking.dispatch("other", text=ANY).info().input == {"text": ANY}
        (one,) = blocking.dispatch_many("other", [{"text": ANY}])
        assert one.info().input == {"text": ANY}
        blocking.signal(Told(ANY), to=one.id)


async def test_what_cannot_be_stored_is_an_error_that_says_so(encoded: tuple[str, str]) -> None:
    dsn, encoding = encoded
    if encoding == "SQL_ASCII":
        async with pgflow.Client(dsn) as client:
            handle = await client.dispatch("€ 漢", tags={"😀": "€"})
            assert [(info.name, info.tags) for info in await client.list(tags={"😀": "€"})] == [("€ 漢", {"😀": "€"})]
            assert (await handle.info()).name == "€ 漢"
        return
    fault = (
        pgflow.SerializationError,
        psycopg.errors.UntranslatableCharacter,
    )  # the latter where Python does not know the encoding
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        with pytest.raises(fault):
            await client.dispatch("x", tags={"😀": "1"})
        with pytest.raises(fault):
            await client.dispatch_many("x😀", [{}])
        with pytest.raises(fault):
            await client.dispatch("x", queue="😀")
        if encoding != "EUC_TW":
            async with await psycopg.AsyncConnection.connect(dsn, client_encoding="utf8") as connection:
                with pytest.raises(pgflow.SerializationError, match=f"{encoding}.* has no '😀'"):
                    await client.dispatch("x", tags={"😀": "1"}, connection=connection)
                await client.dispatch("x", connection=connection)  # the transaction has not been harmed
        for kind in ("activity", "children", "unique"):
            handle = await client.dispatch(hopeless, kind)
            with pytest.raises(pgflow.WorkflowFailed, match="encoding|refused"):
                await handle.output(30)
    with pgflow.SyncClient(dsn) as blocking, pytest.raises(fault):
        blocking.dispatch("😀")


def test_what_is_escaped() -> None:
    assert escaped_json("LATIN1", '"é😀\\n"') == '"\\u00e9\\ud83d\\ude00\\n"'
    assert escaped_json(None, '"é"') == '"é"'
    given = {"payload": "é\x1f1", "inputs": ArrayText('{"\\"é\\""}'), "bodies": ["é", None], "tags": '{"é": 1}', "n": 7}
    assert in_encoding("LATIN1", given) == {
        "payload": "\\u00e9\x1f1",
        "inputs": '{"\\"\\\\u00e9\\""}',
        "bodies": ["\\u00e9", None],
        "tags": '{"é": 1}',
        "n": 7,
    }
    with pytest.raises(UnstorableText, match="KOI8R.* has no 'é'"):
        in_encoding("KOI8R", {"names": ["a", "é"]})
