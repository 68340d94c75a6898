"""A worker drains many runs in one turn; for everything else that it does then, the worker's own loop is the running
one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import BaseModel, field_serializer

import pgflow
from pgflow.worker import scheduler

found: list[asyncio.AbstractEventLoop | None] = []
"""The running loops that were met."""


class Told(BaseModel):
    """An output whose encoder is user code."""

    number: int

    @field_serializer("number")
    def meet(self, number: int) -> int:
        found.append(asyncio._get_running_loop())
        return number


@pgflow.activity
async def one(ctx: pgflow.ActivityContext) -> int:
    return 1


@pgflow.workflow
async def many_rows(ctx: pgflow.WorkflowContext) -> int:
    async def quiet(ctx: pgflow.WorkflowContext) -> int:
        return 1

    return sum([await ctx.branch(quiet) for _ in range(20)]) + await ctx.activity(one)


@pgflow.workflow
async def adding(ctx: pgflow.WorkflowContext) -> Told:
    return Told(number=await ctx.activity(one) + await ctx.activity(one))


class Meeting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if "did not come to rest" in record.getMessage():
            found.append(asyncio._get_running_loop())


@contextmanager
def meeting_tasks(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """What makes tasks begin at once, on later versions of Python, has to be on its own loop."""

    def make(loop: Any, coro: Any, **options: Any) -> Any:
        found.append(asyncio._get_running_loop())
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(None)


async def test_tasks_logs_and_encoders_find_the_workers_loop(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "SLOW", -1.0)
    found.clear()
    handler, log = Meeting(), logging.getLogger("pgflow.worker")
    log.addHandler(handler)
    try:
        async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[adding]):
            with meeting_tasks(asyncio.get_running_loop()):
                handles = [await client.dispatch(adding) for _ in range(20)]
                assert [await handle.output(timeout=20) for handle in handles] == [Told(number=2)] * 20
    finally:
        log.removeHandler(handler)
    assert len(found) > 100
    assert {loop is asyncio.get_running_loop() for loop in found} == {True}


class Handing(logging.Handler):
    """Hands what is told to the running loop, as an application's queue of records would."""

    def emit(self, record: logging.LogRecord) -> None:
        if "rows of active history" in record.getMessage():
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(found.append, loop)


async def test_the_warning_of_many_rows_finds_the_workers_loop(dsn: str) -> None:
    """Branches gather their rows while the run's code calls them."""
    found.clear()
    handler, log = Handing(), logging.getLogger("pgflow")
    log.addHandler(handler)
    try:
        worker = pgflow.Worker(dsn, workflows=[many_rows], max_active_rows=100)
        async with pgflow.Client(dsn) as client, worker:
            assert await (await client.dispatch(many_rows)).output(timeout=20) == 21
    finally:
        log.removeHandler(handler)
    assert found == [asyncio.get_running_loop()]
