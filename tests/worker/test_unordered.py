"""A worker logs at its start, with the line, where a workflow's code iterates over a set."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import pgflow
from pgflow.definitions.descriptors import Registry
from pgflow.worker.unordered import unordered
from pgflow.worker.unrepeatable import warn_of_unrepeatable

Ctx = pgflow.WorkflowContext


@pgflow.activity
async def greet(ctx: pgflow.ActivityContext, name: Any) -> None: ...


@pgflow.workflow
async def walks(ctx: Ctx, names: list[str]) -> None:
    for name in set(names):  # told
        await ctx.activity(greet, name)
    others = {*names} - {"me"}
    await asyncio.gather(*[ctx.activity(greet, name) for name in others])  # told
    await ctx.join(*(ctx.activity(greet, name) for name in {"a", "b"}))  # told


@pgflow.workflow
async def sorts(ctx: Ctx, names: set[str], more: Any) -> None:
    for name in sorted(set(names)):
        await ctx.activity(greet, name)
    for number in {1, 2, 3}:
        await ctx.activity(greet, number)
    count = sum(len(name) for name in set(names))
    lengths = {len(name) for name in set(names)}
    seen = set(names)
    seen = more
    for name in seen:
        await ctx.activity(greet, name)
    for name in set(names):
        count += name == "me"
    await ctx.activity(greet, [count, sorted(lengths)])


def test_lines_of_sets() -> None:
    lines = open(__file__).read().split("\n")
    told = [n for n, line in enumerate(lines, 1) if line.endswith("# " + "told")]
    assert unordered(walks.fn) == [f"{__file__}:{n} in walks" for n in told]
    assert unordered(sorts.fn) == []
    assert unordered(len) == []


def test_a_worker_tells_once(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry([walks])
    with caplog.at_level(logging.WARNING, "pgflow.worker"):
        warn_of_unrepeatable(registry)
        warn_of_unrepeatable(registry)
    assert len(caplog.messages) == 3
    assert 'workflow "walks" iterates over a set at' in caplog.messages[0]
    assert "sorted(...)" in caplog.messages[0]
