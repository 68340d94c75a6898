"""Rewinds of concurrent code: everywhere, history is as a fork would copy it, and the rest is kept under a number."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Any

import pytest

import pgflow
from tests.operate.test_fork_concurrent import ITEMS, KEYS, WORKFLOWS, durations, weigh
from tests.store.scene import Scene

SEEDS = int(os.environ.get("PGFLOW_REWINDS", "1"))
COLUMNS = (
    "location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input::text, "
    "output::text, error::text, wake_at, turn_state::text, turn_now, loop_progress, loop_state::text, turn_seq, "
    "loop_seq"
)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
async def test_history_is_as_a_fork_would_copy_it(dsn: str, workflow: Any) -> None:
    """Each is taken back again: only what the functions write is looked at."""
    scene = Scene(dsn)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        origins = [await client.dispatch(workflow, 31 * seed + 5) for seed in range(SEEDS)]
        for origin in origins:
            await origin.output(timeout=60)
    compared = 0
    with scene.other() as sql:

        def rows(query: str, *values: Any) -> list[Any]:
            return sql.execute(query.encode(), values).fetchall()

        for origin in origins:
            active = f"SELECT {COLUMNS} FROM events WHERE workflow_id = %s ORDER BY location"
            forgotten = (
                f"SELECT {COLUMNS}, rewind FROM forgotten_events WHERE workflow_id = %s ORDER BY location, rewind"
            )
            before = rows(active, origin.id), rows(forgotten, origin.id)
            held = {row[0]: row for row in before[0]} | {row[0]: row[:-1] for row in before[1]}
            for (place,) in rows("SELECT location FROM history WHERE workflow_id = %s", origin.id):
                sql.commit()
                try:
                    ((fork,),) = rows("SELECT fork(%s, %s)", origin.id, place)
                except Exception as error:
                    assert "trimmed" in str(error)
                    sql.rollback()
                    with pytest.raises(Exception, match="trimmed"):
                        rows("SELECT rewind(%s, %s)", origin.id, place)
                    sql.rollback()
                    continue
                rows("SELECT rewind(%s, %s)", origin.id, place)
                now = rows(active, origin.id)
                assert now == rows(active, fork), place
                undone = rows(forgotten, origin.id)
                kept = [row[:-1] for row in undone]
                # Each row is where it was, or in forgotten history as it was, or is of a loop that has forgotten turns.
                for row in held.values():
                    loops = [one for one in now if one[0] == row[0] and row[4] == "loop"]
                    assert row in now or row in kept or loops, (place, row)
                assert all(held[row[0]] == row[:-1] for row in undone)
                # What is left of turns that had ended by then is not undone; whatever is behind the place is.
                assert all(row[-1] == 1 for row in undone if row[0] >= place)
                sql.rollback()
                compared += 1
    scene.close()
    assert compared > 5


@pgflow.signal
@dataclass
class Note:
    text: str


@pgflow.workflow
async def below(ctx: pgflow.WorkflowContext, text: str) -> str:
    return await ctx.activity(weigh, text, len(text) % 3)


@pgflow.workflow
async def listeners(ctx: pgflow.WorkflowContext, seed: int) -> list[str]:
    """Branches that listen, one by one and in a loop, and start children meanwhile: who gets which note is chance."""
    took = durations(seed)
    found: list[str] = []

    async def single(ctx: pgflow.WorkflowContext) -> None:
        for number in range(3):
            await ctx.activity(weigh, f"single {number}", took[number])
            found.append((await ctx.listen(Note)).text)
        found.append(await (await ctx.dispatch(below, "single")).output())

    async def several(ctx: pgflow.WorkflowContext) -> None:
        async def turn(ctx: pgflow.WorkflowContext, state: list[str]) -> Any:
            state = [*state, *[note.text for note in await ctx.listen_many(Note, limit=2)]]
            await ctx.activity(weigh, f"several {len(state)}", took[len(state)])
            return pgflow.Break(state) if len(state) >= 4 else pgflow.Continue(state)

        found.extend(await ctx.loop(turn, [], commit_interval=1, keep_iterations=100))
        found.append(await (await ctx.dispatch(below, "several")).output())

    await ctx.join(single, several)
    return sorted(found)


async def test_each_signal_is_taken_once_or_waits(dsn: str) -> None:
    """At random places, again and again: none is lost or taken twice, and no child is started under an id of before."""
    scene, chance = Scene(dsn), random.Random(5)
    all_notes = sorted(f"note {number}" for number in range(12))
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[listeners, below]):
        for seed in range(3 * SEEDS):
            handle = await client.dispatch(listeners, seed)
            for text in all_notes:
                await handle.signal(Note(text))
            for number in range(1, 7):
                output = await handle.output(timeout=60)
                taken = [text for text in output if text.startswith("note")]
                assert 7 <= len(taken) == len(set(taken)) and output[-2:] == ["weight of several", "weight of single"]
                waits = "SELECT body->>'text' FROM signals WHERE workflow_id = %s AND consumed_at IS NULL"
                assert sorted(taken + scene.all(waits, handle.id)) == all_notes, f"seed {seed}, rewind {number}"
                numbers = scene.all(
                    "SELECT number FROM signals WHERE workflow_id = %s AND number IS NOT NULL", handle.id
                )
                assert len(set(numbers)) == len(numbers)
                children = scene.all("SELECT id FROM workflows WHERE parent_id = %s", handle.id)
                started = scene.all(
                    "SELECT output->>'id' FROM history WHERE workflow_id = %s AND kind = 'child_workflow' "
                    "AND status = 'completed'",
                    handle.id,
                )
                assert sorted(started) == sorted(map(str, children))
                places = scene.all("SELECT location FROM history WHERE workflow_id = %s AND rewind = 0", handle.id)
                assert (await handle.rewind(before=chance.choice(sorted(places)))).number == number
            await handle.output(timeout=60)
    scene.close()


@pytest.mark.parametrize("cached", [1000, 0])
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
async def test_again_and_again(dsn: str, workflow: Any, cached: int) -> None:
    """At random places of one history after the other the outcome is right, and no key comes twice."""
    scene = Scene(dsn)
    chance = random.Random(f"{workflow.name} {cached}")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        for seed in range(SEEDS):
            KEYS.clear()
            handle = await client.dispatch(workflow, 17 * seed + 3)
            wanted = {item: f"weight of {item}" for item in ITEMS[workflow.name]}
            assert await handle.output(timeout=60) == wanted
            done, spent = 0, set(KEYS)
            for _ in range(30):
                if done == 5:
                    break
                places = scene.all("SELECT location FROM history WHERE workflow_id = %s AND rewind = 0", handle.id)
                KEYS.clear()
                place = chance.choice(sorted(places))
                try:
                    undone = await handle.rewind(before=place)
                except pgflow.PgflowError as error:
                    assert "trimmed" in str(error)
                    continue
                done += 1
                assert await handle.output(timeout=60) == wanted, f"seed {seed}: rewind {undone.number} before {place}"
                assert len(set(KEYS)) == len(KEYS) and not spent & set(KEYS), f"rewind {undone.number} before {place}"
                spent |= set(KEYS)
    scene.close()
