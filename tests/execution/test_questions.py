"""How often a parent asks how its children stand: with many of them not at every piece of news, or each end would cost
a question about all.
"""

from __future__ import annotations

import asyncio
import time

import pytest

import pgflow
from pgflow.execution.engine import crossings
from tests.execution.neighbours import Neighbour, Neighbourhood


@pgflow.workflow
async def parent(ctx: pgflow.WorkflowContext, count: int) -> int:
    children = await asyncio.gather(*[ctx.dispatch("child", number=number) for number in range(count)])
    return len(await asyncio.gather(*[child.output() for child in children]))


@pytest.mark.parametrize(("count", "wait"), [(10, 0.001), (100, 0.01), (300, 0.02)])
def test_the_question_after_the_first_waits_for_more_news(
    count: int, wait: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(crossings, "LONGEST_PAUSE", 0.02)
    life = Neighbour(Neighbourhood(parent, count))
    for _ in range(count):
        life.take("cross 0")
    while "commit" in life.choices():
        life.take("commit")
    ((first, _),) = life.inquiries
    assert (len(first.ids), first.wait) == (count, 0)
    life.take("look")
    for choice in ("end 0", "deliver", "arrive", "answer"):
        life.take(choice)
    ((second, _),) = life.inquiries
    assert len(second.ids) == count and second.wait == pytest.approx(wait)
    life.crash()
