"""`pgflow workflow dispatch` refuses what no live worker would take. About 3 seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import pgflow
from pgflow.cli import main
from tests.store.scene import Scene
from tests.waiting import until


@dataclass
class Order:
    number: int


@pgflow.workflow
async def checkout(ctx: pgflow.WorkflowContext, order: Order) -> int:
    return order.number


@pgflow.workflow(name="checkout")
async def newer(ctx: pgflow.WorkflowContext, order: Order, fast: bool) -> int:
    return order.number


@pgflow.workflow
async def refund(ctx: pgflow.WorkflowContext) -> None: ...


@pytest.fixture
def scene(dsn: str) -> Iterator[Scene]:
    """A fresh database with the schema."""
    scene = Scene(dsn)
    yield scene
    scene.close()


def dispatch(dsn: str, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["workflow", "dispatch", *arguments, "--dsn", dsn], prog_name="pgflow")
    assert result.exit_code == code, result.output
    return result.output


def worker(dsn: str, *workflows: pgflow.Workflow[Any, Any], **settings: Any) -> pgflow.Worker:
    return pgflow.Worker(dsn, workflows=workflows, **settings)


ORDER = '{"order": {"number": 7}}'


async def test_where_no_worker_runs_nothing_is_checked(scene: Scene, dsn: str) -> None:
    dispatch(dsn, "anything", '{"x": 1}')
    assert scene.all("SELECT name FROM workflows") == ["anything"]


async def test_what_no_worker_takes_is_refused(scene: Scene, dsn: str) -> None:
    """And nothing is started; they are known for as long as they live."""
    async with worker(dsn, checkout, refund, queues=["slow"]):
        said = dispatch(dsn, "chekout", ORDER, code=1)
        assert 'none of the live workers knows a workflow called "chekout"; is it meant to be "checkout"?' in said
        assert "they know checkout, refund" in dispatch(dsn, "x", "{}", code=1)
        said = dispatch(dsn, "checkout", '{"order": {"number": []}}', code=1)
        assert 'do not fit the workflow "checkout" as the workers know it: order.number: expected integer' in said
        assert 'it has no "order", which is required' in dispatch(dsn, "checkout", code=1)
        assert 'names "fast", which is unknown' in dispatch(dsn, "checkout", ORDER[:-1] + ', "fast": true}', code=1)
        assert scene.all("SELECT id FROM workflows") == []
        assert 'serves the queue "default"; they serve slow' in dispatch(dsn, "checkout", ORDER)
        assert "serves the queue" not in dispatch(dsn, "checkout", ORDER, "--queue", "slow")
        dispatch(dsn, "chekout", ORDER, "--unchecked")
        assert scene.all("SELECT name FROM workflows ORDER BY created_at") == ["checkout", "checkout", "chekout"]
    dispatch(dsn, "x")


async def test_the_newest_build_counts(scene: Scene, dsn: str, client: pgflow.Client) -> None:
    async with worker(dsn, checkout, build="1.9"), worker(dsn, newer, build="1.10", queues=["default", "slow"]):
        said = dispatch(dsn, "checkout", ORDER, code=1)
        assert 'as the workers of build 1.10 know it: it has no "fast", which is required' in said
        found = await client.definitions("checkout")
        assert [(one.build, one.queue, one.arguments["required"]) for one in found] == [
            ("1.10", "default", ["order", "fast"]),
            ("1.10", "slow", ["order", "fast"]),
            ("1.9", "default", ["order"]),
        ]
        assert await client.definitions("refund") == [] and len(await client.definitions(limit=1)) == 1
        with pytest.raises(ValueError):
            await client.definitions("")
    assert await client.definitions() == []


async def test_of_workers_of_before_nothing_is_known(scene: Scene, dsn: str) -> None:
    scene.do("INSERT INTO workers (host, pid, version, queues, expires_at) VALUES ('h', 7, '', '{q}', now() + '1 h')")
    async with worker(dsn, checkout):
        dispatch(dsn, "anything")


async def test_a_role_that_cannot_see_workers_is_not_held_up(scene: Scene, dsn: str) -> None:
    async with worker(dsn, checkout) as made:
        await until(lambda: made.id is not None, "the worker")
        with psycopg.connect(dsn, autocommit=True) as connection:
            role = f"blind_{made.id}"
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'blind'".encode())
            try:
                connection.execute(f"GRANT USAGE ON SCHEMA pgflow TO {role}".encode())
                connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA pgflow TO {role}".encode())
                connection.execute(f"REVOKE ALL ON pgflow.workers FROM {role}".encode())
                dispatch(psycopg.conninfo.make_conninfo(dsn, user=role, password="blind"), "anything")
            finally:
                connection.execute(f"DROP OWNED BY {role}".encode())
                connection.execute(f"DROP ROLE {role}".encode())


@pytest.fixture
async def client(dsn: str) -> Any:
    """A client."""
    async with pgflow.Client(dsn) as client:
        yield client
