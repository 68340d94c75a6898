"""A workflow that a deployment changes, for `test_rolling.py`: PGFLOW_TEST_CODE says which code this process has.

The new code inserts a step before one that old runs have passed, and adds another at the end. Each step leaves a mark
in a table that pgflow knows nothing of.
"""

from __future__ import annotations

import asyncio
import os
import threading

import psycopg

import pgflow

CODE = int(os.environ.get("PGFLOW_TEST_CODE", "1"))
MARKS = "CREATE TABLE public.done (number serial, workflow uuid, step text, code int)"

_lock = threading.Lock()
_open: list[psycopg.Connection[tuple[object, ...]]] = []


def mark(ctx: pgflow.ActivityContext, step: str) -> None:
    with _lock:
        if not _open:
            _open.append(psycopg.connect(os.environ["PGFLOW_DATABASE_URL"], autocommit=True))
        _open[0].execute(
            "INSERT INTO public.done (workflow, step, code) VALUES (%s, %s, %s)", [ctx.workflow_id, step, CODE]
        )


@pgflow.activity
async def work(ctx: pgflow.ActivityContext, step: str) -> int:
    await asyncio.sleep(0.005)
    mark(ctx, step)
    return CODE


@pgflow.activity
def check(ctx: pgflow.ActivityContext) -> None:
    mark(ctx, "check")


async def old(ctx: pgflow.WorkflowContext, seconds: float) -> str:
    await ctx.activity(work, "reserve")
    await ctx.sleep(seconds)
    await ctx.activity(work, "pay")
    await ctx.sleep(seconds)
    await ctx.activity(work, "ship")
    return "old"


async def new(ctx: pgflow.WorkflowContext, seconds: float) -> str:
    await ctx.activity(work, "reserve")
    await ctx.sleep(seconds)
    await ctx.v(2).activity(check)
    await ctx.activity(work, "pay")
    await ctx.sleep(seconds)
    await ctx.activity(work, "ship")
    await ctx.activity(work, "thank")
    return "new"


order = pgflow.workflow(name="order")(old if CODE == 1 else new)
