"""How long what operators did is kept, and who removes it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import pgflow
from pgflow import faults
from pgflow.store.database.connections import Database
from pgflow.store.exchange import sweeping
from pgflow.store.exchange.sweeping import AUDIT_KEEP, Sweeper
from tests.operate.audit_rows import ask, count
from tests.waiting import until


@pgflow.workflow
async def flow(ctx: pgflow.WorkflowContext) -> None:
    """It is there so that the worker has one."""


def old(dsn: str, days: int, how_many: int = 1) -> None:
    ask(
        dsn,
        "INSERT INTO pgflow.audit (at, actor, role, operation) "
        "SELECT now() - make_interval(days => %s), 'kim', 'role', 'pause' FROM generate_series(1, %s)",
        days,
        how_many,
    )


async def swept(dsn: str, keep: float = AUDIT_KEEP) -> None:
    ask(dsn, "UPDATE pgflow.chores SET next_at = now()")
    sweeper = Sweeper(Database(dsn), 86_400.0, keep)
    await sweeper.look()
    await sweeper._line.drop()


async def test_rows_that_are_old_go(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 400 days unless told otherwise, in parts."""
    monkeypatch.setattr(sweeping, "ROWS", 10)
    old(dsn, 401, 25)
    old(dsn, 399, 3)
    parts: list[int] = []

    async def note() -> None:
        parts.append(count(dsn))

    with faults.install({"sweeper.after_audit": note}):
        await swept(dsn)
    assert parts == [18, 8, 3]
    assert ask(dsn, "SELECT held_until, next_at > now() FROM pgflow.chores WHERE name = 'audit'") == [(None, True)]
    await swept(dsn, 398 * 86_400.0)
    assert count(dsn) == 0


async def test_one_removes_at_a_time(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "ROWS", 10)
    old(dsn, 500, 25)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        if not reached.is_set():
            reached.set()
            await go_on.wait()

    first, second = Sweeper(Database(dsn), 86_400.0), Sweeper(Database(dsn), 86_400.0)
    with faults.install({"sweeper.after_audit": hold}):
        removal = asyncio.create_task(first.look())
        await asyncio.wait_for(reached.wait(), 20)
        await second.look()
        assert count(dsn) == 15, "the second one has left it to the first"
        ask(dsn, "UPDATE pgflow.chores SET held_until = now(), next_at = now()")
        await second.look()
        assert count(dsn) == 0, "the first one's lease is over"
        old(dsn, 500)
        go_on.set()
        await removal
    assert count(dsn) == 1, "the first one has stopped"
    for sweeper in (first, second):
        await sweeper._line.drop()


async def test_a_worker_removes_them(dsn: str) -> None:
    old(dsn, 2)
    async with pgflow.Worker(dsn, workflows=[flow], audit_keep=timedelta(days=1)):

        async def gone() -> bool:
            return count(dsn) == 0

        await until(gone, patience=60)


@pytest.mark.parametrize("keep", [-1, "a day", float("nan"), 1e12])
def test_a_time_to_keep_that_cannot_be(keep: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="audit_keep"):
        pgflow.Worker("postgresql:///app", workflows=[flow], audit_keep=keep)
