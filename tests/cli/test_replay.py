"""`pgflow replay` and `pgflow workflow export`: what they print, their exit codes, and that nothing changes. About 5
seconds.
"""

from __future__ import annotations

import itertools
import json
import textwrap
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner, Result

import pgflow
from pgflow.cli import main
from pgflow.history.stored import StoredHistory
from pgflow.testing import Replayed, replay
from tests.waiting import status

TODAY = """
import asyncio
import pgflow

@pgflow.activity
async def reserve(ctx, order: int) -> int:
    return order

@pgflow.activity
async def charge(ctx, order: int) -> int:
    raise AssertionError("a replay executes nothing")

@pgflow.workflow
async def checkout(ctx: pgflow.WorkflowContext, order: int, wait: float = 0) -> int:
    print("printed by the workflow")
    {checkout}

@pgflow.workflow
async def refund(ctx: pgflow.WorkflowContext) -> None:
    {refund}
"""

AS_BEFORE = """
    seats = await ctx.activity(reserve, order)
    await ctx.sleep(wait)
    return await ctx.activity(reserve, seats)
"""

ANOTHER = """
    await ctx.activity(charge, order)
    await ctx.sleep(wait)
    return await ctx.activity(reserve, order)
"""

SHORTER = """
    return await ctx.activity(reserve, order)
"""

INSERTED = """
    await ctx.v(2).activity(charge, order)
    seats = await ctx.activity(reserve, order)
    await ctx.sleep(wait)
    return await ctx.activity(reserve, seats)
"""

RETURNS_ANOTHER = AS_BEFORE.replace("return await", "return 1 + await")

OTHER_ARGUMENTS = AS_BEFORE.replace("reserve, order", "reserve, order + 1").replace(
    "reserve, seats", "reserve, seats + 1"
)

BREAKS = """
    raise KeyError(await ctx.activity(reserve, order))
"""


@pgflow.activity
async def reserve(ctx: pgflow.ActivityContext, order: int) -> int:
    return order


@pgflow.workflow
async def checkout(ctx: pgflow.WorkflowContext, order: int, wait: float = 0) -> int:
    seats = await ctx.activity(reserve, order)
    await ctx.sleep(wait)
    return await ctx.activity(reserve, seats)


@pgflow.workflow
async def refund(ctx: pgflow.WorkflowContext) -> None:
    raise ValueError("refused")


_numbers = itertools.count()
"""Modules are imported once a process."""


class Shop:
    """A database with one sleeping, one completed and one failed workflow, and code to replay them with."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.folder = folder
        self.sleeping = self.completed = self.failed = UUID(int=0)

    async def open(self) -> None:
        async with pgflow.Client(self.dsn) as client, pgflow.Worker(self.dsn, workflows=[checkout, refund]):
            sleeping = await client.dispatch(checkout, 1, 3600.0)
            completed, failed = await client.dispatch(checkout, 2), await client.dispatch(refund)
            assert await completed.output(20) == 2
            with pytest.raises(pgflow.WorkflowFailed):
                await failed.output(20)
            await status(client, sleeping, "sleeping")
        self.sleeping, self.completed, self.failed = sleeping.id, completed.id, failed.id

    def module(self, checkout: str = AS_BEFORE, refund: str = "    raise ValueError('refused')") -> str:
        """A module of today's code."""
        name = f"shop_of_today_{next(_numbers)}"
        text = TODAY.replace("    {checkout}", textwrap.indent(textwrap.dedent(checkout), "    "))
        (self.folder / f"{name}.py").write_text(text.replace("    {refund}", refund))
        return name

    def pgflow(self, *arguments: Any, code: int = 0, dsn: str | None = None) -> Result:
        environment = {"PGFLOW_DATABASE_URL": dsn or self.dsn, "PGFLOW_SCHEMA": None}
        result = CliRunner().invoke(main, list(map(str, arguments)), env=environment, prog_name="pgflow")
        assert result.exit_code == code, result.output
        return result

    def replayed(self, code: int, module: str, *options: Any) -> Any:
        """The document that `pgflow replay --json` prints."""
        before = self.rows()
        document = json.loads(self.pgflow("replay", module, "--json", *options, code=code).stdout)
        assert self.rows() == before, "a check changes nothing"
        return document

    def rows(self) -> list[Any]:
        with psycopg.connect(self.dsn) as sql:
            tables = ("workflows", "runs", "events", "forgotten_events", "signals", "requests")
            return [
                sql.execute(f"SELECT t::text, t.xmin::text FROM pgflow.{table} AS t ORDER BY 1".encode()).fetchall()
                for table in tables
            ]


@pytest.fixture
async def shop(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.syspath_prepend(str(tmp_path))
    shop = Shop(dsn, tmp_path)
    await shop.open()
    return shop


def test_everything_fits(shop: Shop) -> None:
    module = shop.module()
    said = shop.pgflow("replay", module).stdout
    assert said == "3 histories checked: 3 fit, 0 do not\n"
    assert shop.replayed(0, module)["checked"] == 3
    assert shop.replayed(0, module, "--live")["checked"] == 2
    assert shop.replayed(0, module, "--status", "completed")["checked"] == 1
    assert shop.replayed(0, module, "--name", "refund", "--status", "failed", "--status", "sleeping")["checked"] == 1
    limited = shop.replayed(0, module, "--limit", 1)
    assert (limited["checked"], limited["more"]) == (1, True)
    assert "more than 2: --limit" in shop.pgflow("replay", module, "--limit", 2).stdout


def test_divergences_are_told_with_their_place(shop: Shop) -> None:
    module = shop.module(ANOTHER)
    found = shop.replayed(1, module)
    by_id = {UUID(one["workflow_id"]): one for one in found["divergences"]}
    assert set(by_id) == {shop.sleeping, shop.completed}
    told = by_id[shop.sleeping]
    assert (told["error"], told["location"], told["status"], told["name"]) == (
        "HistoryDiverged",
        "{1}",
        "sleeping",
        "checkout",
    )
    assert (told["expected"], told["found"]) == ('activity "charge" of version 1', 'activity "reserve" of version 1')
    assert "ctx.removed" in told["message"]
    said = shop.pgflow("replay", module, code=1).stdout
    line = (
        f'{shop.sleeping} "checkout" (sleeping): HistoryDiverged at {{1}}: expected activity "charge" of version 1, '
        'found activity "reserve" of version 1'
    )
    assert line in said.splitlines()
    assert "3 histories checked: 1 fits, 2 do not" in said and "pgflow workflow export" in said


def test_latent_history_and_code_that_fails(shop: Shop) -> None:
    (latent,) = shop.replayed(1, shop.module(SHORTER), "--live")["divergences"]
    assert (latent["error"], latent["location"], latent["found"]) == ("LatentHistory", "{2}", "sleep")
    broken = {one["workflow_id"]: one for one in shop.replayed(1, shop.module(BREAKS))["divergences"]}
    assert set(broken) == {str(shop.sleeping), str(shop.completed)}
    assert broken[str(shop.sleeping)]["found"] == "KeyError: 1"
    slept = "    await asyncio.sleep(1)"
    (refused,) = shop.replayed(1, shop.module(refund=slept), "--name", "refund")["divergences"]
    assert (refused["error"], refused["status"]) == ("NondeterminismError", "failed")


def test_insertions_and_other_outputs_are_told(shop: Shop) -> None:
    module = shop.module(INSERTED)
    assert shop.replayed(0, module)["partly"] == 2
    assert "2 of these could be checked only as far as" in shop.pgflow("replay", module).stdout
    module = shop.module(RETURNS_ANOTHER)
    assert shop.replayed(0, module)["other_output"] == 1
    assert "1 of the completed ones would return something else" in shop.pgflow("replay", module).stdout


def test_other_arguments_are_told_unless_they_are_ignored(shop: Shop) -> None:
    module = shop.module(OTHER_ARGUMENTS)
    told = shop.replayed(1, module)["divergences"]
    assert {(one["workflow_id"], one["error"], one["location"]) for one in told} == {
        (str(id), "OtherArguments", "{1}") for id in (shop.sleeping, shop.completed)
    }
    assert (
        'recorded arguments {"order":2}' in {one["workflow_id"]: one["expected"] for one in told}[str(shop.completed)]
    )
    assert 'the arguments {"order":3}, and so have 1 further steps' in shop.pgflow("replay", module, code=1).stdout
    assert shop.replayed(0, module, "--ignore-arguments")["ignored_arguments"] == 2
    assert (
        "2 of these call recorded steps with other arguments"
        in shop.pgflow("replay", module, "--ignore-arguments").stdout
    )


def test_a_workflow_about_to_fail_is_looked_at_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs, its failure may be recorded and not yet be the workflow's: not the fault of today's code."""
    module = shop.module()
    with psycopg.connect(shop.dsn, autocommit=True) as sql:

        def stands(run: str, final: str | None) -> None:
            sql.execute("UPDATE pgflow.runs SET status = %s WHERE workflow_id = %s", [run, shop.failed])
            sql.execute("UPDATE pgflow.workflows SET status = %s WHERE id = %s", [final, shop.failed])

        stands("running", None)
        (told,) = shop.replayed(1, module)["divergences"]
        assert (told["status"], told["found"]) == ("running", "ValueError: refused")

        def meanwhile(workflow: pgflow.Workflow[Any, Any], history: StoredHistory) -> Replayed:
            try:
                return replay(workflow, history)
            finally:
                stands("failed", "failed")

        monkeypatch.setattr("pgflow.cli.replay.replay_one", meanwhile)
        assert "3 fit, 0 do not" in shop.pgflow("replay", module).stdout


def test_names_that_the_code_does_not_know(shop: Shop) -> None:
    module = shop.module()
    assert shop.replayed(0, f"{module}:refund")["unknown"] == {"checkout": 2}
    said = shop.pgflow("replay", f"{module}:refund").stdout
    assert 'not checked: 2 of workflow "checkout", which is not in what was given' in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no_such_module"], "no module 'no_such_module'"),
        (["json"], "has no workflow"),
        (["{module}", "--name", "nobody"], "--name nobody: no such workflow"),
        (["{module}", "--live", "--status", "completed"], "leaves nothing"),
        (["{broken}"], "ZeroDivisionError"),
        (["{module}", "{module}:refund", "{twice}"], 'two workflows are called "checkout"'),
    ],
)
def test_what_cannot_be_checked(shop: Shop, arguments: list[str], says: str) -> None:
    (shop.folder / "broken_on_import.py").write_text("1 / 0")
    names = {"module": shop.module(), "twice": shop.module(), "broken": "broken_on_import"}
    assert says in shop.pgflow("replay", *[one.format(**names) for one in arguments], code=2).output


def test_a_database_that_cannot_be_used(shop: Shop, database_dsn: str) -> None:
    module = shop.module()
    assert "pgflow db upgrade" in shop.pgflow("replay", module, code=2, dsn=database_dsn).output
    assert "cannot be reached" in shop.pgflow("replay", module, code=2, dsn="host=127.0.0.1 port=1").output


async def test_an_export_replays(shop: Shop) -> None:
    text = shop.pgflow("workflow", "export", shop.sleeping).stdout
    found = replay(checkout, text)
    assert (found.id, found.status, found.next_steps) == (shop.sleeping, "open", ("sleep at {2}",))
    async with pgflow.Client(shop.dsn) as client:
        exported = StoredHistory.from_json(await client.export(shop.completed))
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.export(UUID(int=1))
    assert (exported.status, exported.output, len(exported.events)) == ("completed", "2", 3)
    assert replay(checkout, exported).same_output
    assert "there is no workflow" in shop.pgflow("workflow", "export", UUID(int=1), code=1).output


def test_a_synchronous_client_exports(shop: Shop) -> None:
    with pgflow.SyncClient(shop.dsn) as client:
        assert replay(checkout, client.export(shop.completed)).same_output
