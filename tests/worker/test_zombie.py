"""A worker stopped past its lease and continued after another has finished its workflows writes nothing. About 6
seconds.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from typing import Any

import pgflow
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import let_go_on, marked, marks, worker_process

TABLES = ("workflows", "runs", "events", "forgotten_events", "signals")


def everything(scene: Scene) -> dict[str, list[Any]]:
    """All that could tell of a write: each row with the transaction that wrote it."""
    return {table: scene.all(f"SELECT t.xmin::text, t::text FROM {table} AS t ORDER BY t::text") for table in TABLES}


async def test_a_zombie_writes_nothing_and_comes_back_to_life(scene: Scene, client: pgflow.Client) -> None:
    """It is stopped with activities of every sort in flight, a loop in the middle of a turn, and sleepers in its
    memory.
    """
    names = ["one", "two"]
    handles: list[pgflow.WorkflowHandle[Any]] = [
        await client.dispatch(flows.holding, "one"),
        await client.dispatch(flows.holding, "two", True),
        await client.dispatch(flows.turning, 30, 7, held_at=25),
        await client.dispatch(flows.sleeper, 1, 3),
        await client.dispatch(flows.hurried, 3),
    ]
    with worker_process(scene, "--lease", "2") as zombie:
        number = await zombie.registered()
        for name in [*names, "turn 25"]:
            await marked(scene, f"{name} begins")
        await until(lambda: len(scene.all("SELECT 1 FROM runs WHERE status = 'sleeping'")) == 2, "the sleepers")
        zombie.send(signal.SIGSTOP)
        with worker_process(scene, "--lease", "60") as heir:
            for name in [*names, "turn 25"]:
                await marked(scene, f"{name} begins", times=2)
            for name in [*names, "turn 25"]:
                let_go_on(scene, name)
            assert [await handle.output(30) for handle in handles] == [
                "one of attempt 1",
                "two of attempt 1",
                30,
                3,
                "late",
            ]
            heir.send(signal.SIGTERM)
            assert await heir.ended() == 0
        before = everything(scene)
        assert scene.all("SELECT id FROM workers") == [], "nobody takes the zombie for alive"
        zombie.send(signal.SIGCONT)
        await zombie.logged("the lease is lost")
        reborn = await zombie.registered()
        assert reborn != number
        assert everything(scene) == before
        # What it had in memory is gone: it takes new work, and nothing of the old comes after it.
        assert await (await client.dispatch(flows.sums, 4)).output(20) == 50
        assert scene.all("SELECT DISTINCT worker_id FROM runs") == []
        after = everything(scene)
        for table, rows in before.items():
            assert set(rows) <= set(after[table]), table
        zombie.send(signal.SIGTERM)
        assert await zombie.ended() == 0, zombie.log
    begun = [what for what, process, _ in marks(scene) if process == zombie.pid and what.endswith("begins")]
    assert sorted(begun) == sorted(f"{name} begins" for name in [*names, "turn 25"]), "it began something again"


async def test_a_zombie_begins_nothing_that_others_have_done(scene: Scene, client: pgflow.Client) -> None:
    """It is stopped at full speed: answers to its writes of that time wait in its sockets when it comes back."""
    steps, flows_at_once = 200, 30
    handles = await client.dispatch_many(
        flows.marking, [{"name": f"flow {n}", "steps": steps} for n in range(flows_at_once)]
    )
    with worker_process(scene, "--lease", "1") as zombie:
        await zombie.registered()
        await until(lambda: len(marks(scene)) > 500, "some hundred steps")
        zombie.send(signal.SIGSTOP)
        async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
            for handle in handles:
                await handle.output(60)
        continued = time.monotonic()
        zombie.send(signal.SIGCONT)
        await zombie.logged("the lease is lost")
        assert await (await client.dispatch(flows.sums, 4)).output(20) == 50
    late = "SELECT what FROM public.marks WHERE process = %s AND begun > %s"
    # One attempt may have been between the look at the lease and its first instruction when the process was stopped.
    assert len(scene.all(late, zombie.pid, continued)) <= 1
    by_step = Counter(what for what, _, _ in marks(scene))
    assert len(by_step) == steps * flows_at_once
    assert sum(by_step.values()) - len(by_step) <= flows_at_once, "more was done twice than was in flight"
