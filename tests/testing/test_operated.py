"""Histories of workflows that were cancelled, forked and retried on a real database replay as they ran. About 2
seconds.
"""

from __future__ import annotations

import asyncio

import pytest

import pgflow
from pgflow.testing import replay
from tests import waiting


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def note(ctx: pgflow.ActivityContext, text: str) -> str:
    if text == broken:
        raise ConnectionError(text)
    return text


broken = ""


@pgflow.workflow
async def careful(ctx: pgflow.WorkflowContext, reraises: bool) -> str:
    try:
        await ctx.join(ctx.activity(note, "begun"), ctx.sleep(3600), ctx.sleep(7200))
    except asyncio.CancelledError:
        await ctx.activity(note, "compensated")
        if reraises:
            raise
        return "stopped"
    return "slept"


@pgflow.workflow
async def sequence(ctx: pgflow.WorkflowContext) -> list[str]:
    return [await ctx.activity(note, "a"), await ctx.activity(note, "b"), str(ctx.uuid4())]


@pytest.mark.parametrize("reraises", [True, False])
async def test_cancelled(dsn: str, reraises: bool) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[careful]):
        handle = await client.dispatch(careful, reraises)
        await waiting.status(client, handle, "sleeping")
        asleep = replay(careful, await client.export(handle.id))
        assert asleep.next_steps == ("sleep at {2}", "sleep at {3}")
        await client.cancel(handle.id)
        await waiting.status(client, handle, "cancelled" if reraises else "completed")
        found = replay(careful, await client.export(handle.id))
        assert (found.status, found.output) == (("cancelled", None) if reraises else ("completed", "stopped"))
        assert found.events == 4 and found.unreached == 0


async def test_failed_retried_and_forked(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.broken", "b")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[sequence]):
        handle = await client.dispatch(sequence)
        with pytest.raises(pgflow.WorkflowFailed):
            await handle.output(20)
        found = replay(sequence, await client.export(handle.id))
        assert found.status == "failed" and isinstance(found.error, pgflow.ActivityFailed)
        monkeypatch.setattr(f"{__name__}.broken", "")
        await client.retry(handle.id)
        output = await handle.output(20)
        assert replay(sequence, await client.export(handle.id)).output == output
        fork = await client.fork(handle.id, before="{2}")
        assert await fork.output(20) == output, "a fork keeps its origin's random numbers"
        assert replay(sequence, await client.export(fork.id)).same_output
