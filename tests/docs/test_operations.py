"""What docs/operations.md says about settings and roles is true. About 3 seconds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow.cli import main
from pgflow.cli.run_worker import worker
from tests.docs.page import ROOT, blocks_of

PAGE = ROOT / "docs" / "operations.md"


@pgflow.signal
@dataclass
class Word:
    pass


@pgflow.workflow
async def double(ctx: pgflow.WorkflowContext, number: int) -> int:
    await ctx.sleep(1.2)
    return number * 2


def shown(value: Any) -> str:
    """A default as the table of settings has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return str(value[0])
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def test_the_table_of_settings_is_complete() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (?:`--([\w-]+)`)? ?\| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    parameters = inspect.signature(pgflow.Worker).parameters
    assert {name for name, _, _ in rows} == set(parameters) - {"dsn", "workflows", "schema"}
    options = {
        option.opts[0].removeprefix("--"): option for option in worker.params if isinstance(option, click.Option)
    }
    assert {option for _, option, _ in rows if option} == set(options) - {
        "dsn",
        "schema",
        "processes",
        "log-level",
        "log-format",
    }
    for name, option, default in rows:
        if default.startswith("as "):
            assert parameters[name].default is None
        else:
            values = [parameters[name].default] + (
                [options[option].to_info_dict()["default"]] if option and not options[option].is_flag else []
            )
            assert {shown(value) for value in values} == {default.strip("`")}


@pytest.fixture(params=["functions are everybody's", "functions are nobody's"])
def roles(request: pytest.FixtureRequest, database_dsn: str) -> Iterator[dict[str, str]]:
    """The DSNs of the page's roles, which its SQL makes; also where nobody may execute functions by default."""
    dsn = database_dsn
    if request.param == "functions are nobody's":
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    pgflow.migrate(dsn)
    (block,) = (block for block in blocks_of(PAGE) if block.language == "sql")
    names = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '([^']+)'", block.text))
    (command,) = re.findall(r"^\$ pgflow (db roles .* --apply)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        try:
            connection.execute(block.text.encode())
            result = CliRunner().invoke(main, [*command.split(), "--dsn", dsn])
            assert result.exit_code == 0, result.output
            yield {name: make_conninfo(dsn, user=name, password=password) for name, password in names.items()}
        finally:
            for name in names:
                connection.execute(f"DROP OWNED BY {name}".encode())
                connection.execute(f"DROP ROLE {name}".encode())


async def test_the_roles_of_the_page(roles: dict[str, str]) -> None:
    """One starts and signals, one works, one looks, one operates."""
    async with (
        pgflow.Worker(roles["shop_worker"], workflows=[double]),
        pgflow.Client(roles["shop_worker"]) as client,
        pgflow.Client(roles["shop_sender"]) as sender,
        pgflow.Client(roles["shop_reader"]) as reader,
        pgflow.Client(roles["shop_operator"]) as operator,
    ):
        handle = await sender.dispatch(double, 21)
        assert await client.handle(double, handle.id).output(timeout=30) == 42
        assert (await reader.get(handle.id)).output is None
        assert [event.kind for event in await reader.history(handle.id)] == ["sleep"]
        assert not await operator.cancel(handle.id)
        await sender.signal(Word(), workflow=double, tags={"n": 1}, missing_ok=True)
        for refused in (reader.dispatch(double, 21), operator.get(handle.id), sender.output(handle.id)):
            with pytest.raises(pgflow.PgflowError, match="permission denied"):
                await refused
    with psycopg.connect(roles["shop_reader"], autocommit=True) as connection:
        assert connection.execute("SELECT at FROM pgflow.history").fetchall() == [("{1}",)]
    with psycopg.connect(roles["shop_sender"], autocommit=True) as connection:
        (id,) = connection.execute(
            "SELECT pgflow.dispatch('double', '{\"number\": 1}', tags := '{\"n\": 1}')"
        ).fetchone() or ("",)
        connection.execute("SELECT pgflow.signal('double', '{\"n\": 1}', 'word', '{}')")
    with psycopg.connect(roles["shop_operator"], autocommit=True) as connection:
        connection.execute("SELECT pgflow.pause(%s), pgflow.resume(%s), pgflow.cancel(%s)", [id, id, id])
