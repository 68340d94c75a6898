"""Worker processes that are started again when they die: `python -m tests.worker.nursery NUMBER`.

They are forked, which spares each the time of its imports. Each death is a line on standard output. Their workflows end
processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pgflow
from pgflow.store.leasing.lease_thread import LeaseThread
from tests.store.scene import Scene
from tests.worker import flows

ROOT = Path(__file__).parent.parent.parent
CRASH = 139
AT_ONCE = pgflow.RetryPolicy(max_attempts=2, initial=0.01)


def die(seconds: float = 0.0) -> None:
    """End the process as a fault in native code would."""
    time.sleep(seconds)
    os._exit(CRASH)


@pgflow.activity(retry=AT_ONCE)
async def crash(ctx: pgflow.ActivityContext, survives: int | None = None, after: float = 0.0) -> str:
    """Ends its process, but for the attempt `survives`."""
    flows.mark(ctx, "crash")
    if ctx.attempt != survives:
        await asyncio.sleep(after)
        die()
    return f"attempt {ctx.attempt}"


@pgflow.activity(retry=AT_ONCE)
def crash_in_thread(ctx: pgflow.ActivityContext) -> None:
    flows.mark(ctx, "crash")
    die()


@pgflow.activity(retry=AT_ONCE, transactional=True)
async def crash_in_transaction(ctx: pgflow.ActivityContext) -> None:
    flows.mark(ctx, "crash")
    await ctx.connection.execute("SELECT 1")
    die()


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def crash_once(ctx: pgflow.ActivityContext) -> None:
    flows.mark(ctx, "crash")
    die()


@pgflow.activity(retry=AT_ONCE)
async def tells_and_crashes(ctx: pgflow.ActivityContext) -> None:
    """Has its heartbeats recorded first: they are no progress."""
    flows.mark(ctx, "crash")
    ctx.heartbeat("half way")
    await asyncio.sleep(0.2)
    die()


@pgflow.activity
async def work(ctx: pgflow.ActivityContext, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return ctx.attempt


KINDS: dict[str, pgflow.Activity[Any, Any]] = {
    one.name: one for one in (crash, crash_in_thread, crash_in_transaction, crash_once, tells_and_crashes)
}


@pgflow.workflow
async def poison(ctx: pgflow.WorkflowContext, kind: str, args: dict[str, Any]) -> str:
    try:
        told: str = await ctx.activity(KINDS[kind], **args)
        return told
    except pgflow.ActivityFailed as error:
        return f"{error.attempts} attempts, {error.error_type}: {error.error_message}"


@pgflow.workflow
async def family(ctx: pgflow.WorkflowContext) -> str:
    """An innocent parent of a guilty child."""
    child = await ctx.dispatch(poison, "crash", {})
    return "child: " + await child.output()


@pgflow.workflow
async def gathers(ctx: pgflow.WorkflowContext) -> list[Any]:
    """A guilty activity beside one that ends before it kills."""
    ended = await asyncio.gather(ctx.activity(work, 0.0), ctx.activity(crash, None, 0.5), return_exceptions=True)
    return [type(one).__name__ for one in ended]


@pgflow.workflow
async def innocent(ctx: pgflow.WorkflowContext, seconds: float) -> int:
    return await ctx.activity(work, seconds)


@pgflow.workflow
async def crashing_code(ctx: pgflow.WorkflowContext) -> str:
    """Ends its process by itself, until a file says that it is mended."""
    await ctx.activity(work, 0.0)
    if not Path(os.environ["PGFLOW_TEST_LOGS"], "mended").exists():
        die()
    return "mended"


@pgflow.workflow
async def killed_while_it_replays(ctx: pgflow.WorkflowContext) -> str:
    """Its activity ends the first process; the second is killed before the replay has come to that activity."""
    lives = Path(os.environ["PGFLOW_TEST_LOGS"], "lives")
    with lives.open("a") as file:
        file.write(".")
    if lives.stat().st_size == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        await ctx.activity(crash_once)
    except pgflow.ActivityFailed as error:
        return f"{error.attempts} attempts, {error.error_type}"
    return "nothing"


ALL: list[pgflow.Workflow[Any, Any]] = [poison, family, gathers, innocent, crashing_code, killed_while_it_replays]


class Nursery:
    """So many worker processes, kept alive."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def deaths(self) -> int:
        """How many processes have died."""
        return self._log.read_text().count("died\n")


@contextlib.contextmanager
def nursery(scene: Scene, processes: int = 1, **settings: Any) -> Iterator[Nursery]:
    """Worker processes that are started again when they die, until the end of the block."""
    log = Path(os.environ["PGFLOW_TEST_LOGS"]) / f"nursery{len(os.listdir(os.environ['PGFLOW_TEST_LOGS']))}.log"
    environment = {**os.environ, flows.VARIABLE: scene.database.dsn}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.nursery", str(processes), repr(settings)],
            cwd=ROOT,
            env=environment,
            stdout=out,
            text=True,
        )
    try:
        yield Nursery(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def keep(processes: int, settings: dict[str, Any], workflows: list[Any] = ALL) -> None:
    """Keep so many worker processes alive, until SIGTERM."""
    if not settings.pop("locks", True):
        LeaseThread._take_lock = lambda self, connection: None  # type: ignore[method-assign]
    alive: set[int] = set()

    def stop(number: int, frame: FrameType | None) -> None:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    while True:
        while len(alive) < processes:
            pid = os.fork()
            if not pid:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                asyncio.run(pgflow.Worker(os.environ[flows.VARIABLE], workflows=workflows, **settings).run())
                os._exit(1)
            alive.add(pid)
        ended, _ = os.wait()
        alive.discard(ended)
        print("died", flush=True)


if __name__ == "__main__":
    keep(int(sys.argv[1]), eval(sys.argv[2]))
