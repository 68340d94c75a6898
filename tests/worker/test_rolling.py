"""A rolling deployment of a changed workflow, with real processes under load. About 12 seconds: four processes start,
two of them while others work, and workflows sleep for longer than a second, so that they leave the worker's memory.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pgflow
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import rolling

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def process(scene: Scene, code: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process with this code, whose build says so."""
    running = subprocess.Popen(
        [sys.executable, "cli.py", "worker", "tests.worker.rolling:order", "--build", f"1.{code}", "--grace", "60"],
        cwd=ROOT,
        env={**os.environ, "PGFLOW_DATABASE_URL": scene.database.dsn, "PGFLOW_TEST_CODE": str(code)},
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


async def registered(scene: Scene, *processes: subprocess.Popen[bytes]) -> None:
    ids = [running.pid for running in processes]
    wanted = len(ids)
    await until(lambda: scene.one("SELECT count(*) FROM workers WHERE pid = ANY (%s)", ids) == wanted, "the workers")


async def stopped(running: subprocess.Popen[bytes]) -> None:
    """It is told to stop, ends what it has begun, and hands the rest back."""
    running.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.wait, 60) == 0


async def test_nothing_fails_runs_twice_or_goes_back(scene: Scene, client: pgflow.Client) -> None:
    """Two old processes are replaced by two new ones, one after the other, while workflows come in and wake."""
    scene.do(rolling.MARKS)
    chance = random.Random(7)
    handles: list[pgflow.WorkflowHandle[Any]] = []
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            some = [{"seconds": chance.uniform(1.1, 2.5)} for _ in range(3)]
            handles.extend(await client.dispatch_many("order", some))
            await asyncio.sleep(0.1)

    with process(scene, 1) as first, process(scene, 1) as second:
        await registered(scene, first, second)
        loading = asyncio.create_task(load())
        await until(lambda: scene.one("SELECT count(*) FROM public.done WHERE step = 'ship'") > 5, "the old code's end")
        with process(scene, 2) as third:
            await registered(scene, third)
            await stopped(first)
            with process(scene, 2) as fourth:
                await registered(scene, fourth)
                await stopped(second)
                so_far = "SELECT count(*) FROM public.done WHERE step = 'thank'"
                await until(lambda: scene.one(so_far) > 10, "the new code's end")
                done.set()
                await loading
                ended = [await handle.output(timeout=60) for handle in handles]
    assert set(ended) == {"old", "new"}
    codes: dict[UUID, list[int]] = defaultdict(list)
    steps: dict[UUID, list[str]] = defaultdict(list)
    for workflow, step, code in scene.all("SELECT workflow, step, code FROM public.done ORDER BY number"):
        codes[workflow].append(code)
        steps[workflow].append(step)
    assert len(codes) == len(handles)
    assert [found for found in steps.values() if len(set(found)) < len(found)] == []
    assert [found for found in codes.values() if found != sorted(found)] == []
    changed = [found for found in codes.values() if len(set(found)) == 2]
    assert changed, "none was changed on its way"
    wanted = {1: ["reserve", "pay", "ship"], 2: ["reserve", "check", "pay", "ship", "thank"]}
    assert all(steps[one] == wanted[2] for one in codes if codes[one][0] == 2)
    assert all(steps[one] == wanted[1] for one in codes if codes[one][-1] == 1)
