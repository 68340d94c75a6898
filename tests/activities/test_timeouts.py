"""`heartbeat_timeout` and `total_timeout` of activities. About 8 seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import pgflow
from pgflow.execution.activities import heartbeats
from pgflow.testing import run
from tests.activities import timeouts
from tests.activities.timeouts import attempts, bounded, go_on, told
from tests.store.scene import Scene
from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent
BACK = (
    "UPDATE events SET loop_state = to_json(((loop_state #>> '{}')::timestamptz - interval '2 hours')::text) "
    "WHERE loop_state IS NOT NULL"
)
"""As if all that `total_timeout` counts had begun two hours earlier."""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of what a test holds up, which ends with the test."""
    yield request.node.name
    go_on.add(request.node.name)


def worker(scene: Scene, **settings: Any) -> pgflow.Worker:
    return pgflow.Worker(scene.database.dsn, workflows=timeouts.ALL, **settings)


@pytest.mark.parametrize("sort", ["async", "thread", "transactional"])
async def test_silence_ends_an_attempt(scene: Scene, client: pgflow.Client, sort: str, name: str) -> None:
    scene.do("CREATE TABLE written (what text)")
    async with worker(scene):
        handle = await client.dispatch(bounded, sort, name, silence=0.2)
        with pytest.raises(pgflow.WorkflowFailed, match="gave no heartbeat for 0.2 s, its heartbeat_timeout") as caught:
            await handle.output(timeout=60)
        assert caught.value.error_type == "ActivityFailed"
        go_on.add(name)
        if sort == "thread":
            await until(lambda: name in told, "the end of the thread")
            assert "it has given no heartbeat for 0.2 s" in str(told[name])
    assert scene.all("SELECT what FROM written") == []


async def test_a_heartbeat_is_heard(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        assert await (await client.dispatch(timeouts.heard)).output(timeout=60) == "heard"


class Clock:
    """A clock, and the timers of a loop that goes by it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.expired = False

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        self.timers.append((self.now + seconds, call))

    def reschedule(self, when: float) -> None:
        self.timers.append((when, lambda: setattr(self, "ended_at", self.now)))

    ended_at: float | None = None

    def pass_until(self, when: float, blocked: bool = False) -> None:
        """Time passes; timers fire when they are due, or at the end while the loop is blocked."""
        while self.timers and min(self.timers)[0] <= when:
            due = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove(due)
            self.now = when if blocked else max(self.now, due[0])
            due[1]()
        self.now = when


def test_the_time_since_the_last_heartbeat_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none in which the loop was blocked for so long that nobody could be heard."""
    clock: Any = Clock()
    clock.expired = lambda: False
    monkeypatch.setattr(heartbeats, "time", clock)
    heard = [0.0]
    silence = heartbeats.Silence(clock, 10.0, lambda: heard[0], clock)
    for at in (105.0, 111.0, 119.0, 128.5):
        clock.pass_until(at)
        heard[0] = at
    clock.pass_until(138.4)
    assert clock.ended_at is None
    clock.pass_until(160.0, blocked=True)
    assert clock.ended_at is None and not silence.broken
    clock.pass_until(180.0)
    assert clock.ended_at == 170.0 and silence.broken


def test_wherever_settings_may_stand() -> None:
    activity = timeouts.declared
    assert (activity.timeout, activity.heartbeat_timeout, activity.total_timeout) == (None, 0.2, 3600.0)
    other = activity.options(heartbeat_timeout=timedelta(minutes=1), total_timeout=None)
    assert (other.timeout, other.heartbeat_timeout, other.total_timeout) == (None, 60.0, None)
    assert other.options(timeout=7).heartbeat_timeout == 60.0
    for bad in (0, -1, "7", float("nan"), True):
        for which in ("heartbeat_timeout", "total_timeout"):
            with pytest.raises(ValueError, match=f"{which} of an activity"):
                activity.options(**{which: bad})  # type: ignore[arg-type]  # refused
            with pytest.raises(ValueError, match=f"{which} of an activity"):
                pgflow.activity(**{which: bad})  # type: ignore[call-overload]  # refused


async def test_attempts_end_when_another_would_begin_too_late(scene: Scene, client: pgflow.Client, name: str) -> None:
    async with worker(scene):
        handle = await client.dispatch(bounded, "failing", name, total=0.4)
        with pytest.raises(pgflow.WorkflowFailed) as caught:
            await handle.output(timeout=60)
    assert 'TimeoutError: activity "fail" did not end within its total_timeout of 0.4 s' in str(caught.value)
    assert f"the last attempt that ended failed by ConnectionError: no {name}" in str(caught.value)
    (event,) = await client.history(handle.id)
    assert event.status == "failed" and event.attempts == attempts[name][-1]


def test_attempts_in_memory() -> None:
    """In skipped time: at 0, 10, 20 and 30 s; another would begin at 40."""
    policy = pgflow.RetryPolicy(max_attempts=100, initial=10, multiplier=1, jitter=False)
    activity = timeouts.fail.options(total_timeout=35, retry=policy)

    @pgflow.workflow
    async def failing(ctx: pgflow.WorkflowContext) -> str:
        try:
            return await ctx.activity(activity, "in memory")
        except pgflow.ActivityFailed as error:
            return f"{error.attempts} {error.error_type}"

    assert run(failing).output == "4 TimeoutError"
    assert attempts["in memory"] == [1, 2, 3, 4]


@pytest.mark.parametrize("sort", ["async", "thread", "transactional"])
async def test_an_attempt_is_cut_off(scene: Scene, client: pgflow.Client, sort: str, name: str) -> None:
    scene.do("CREATE TABLE written (what text)")
    async with worker(scene):
        handle = await client.dispatch(bounded, sort, name, total=0.3)
        with pytest.raises(pgflow.WorkflowFailed, match="did not end within its total_timeout of 0.3 s$"):
            await handle.output(timeout=60)
        go_on.add(name)
        if sort == "thread":
            await until(lambda: name in told, "the end of the thread")
            assert "its total_timeout has passed" in str(told[name])
    assert scene.all("SELECT what FROM written") == []


async def test_one_that_waits_for_a_place_is_cut_off(scene: Scene, client: pgflow.Client, name: str) -> None:
    """It has made no attempt."""
    async with worker(scene, activities=1):
        first = await client.dispatch(bounded, "async", name)
        await until(lambda: name in attempts, "the first one")
        second = await client.dispatch(bounded, "async", f"{name} too", total=0.2)
        with pytest.raises(pgflow.WorkflowFailed, match="after 0 attempts.*; another one waited for a place"):
            await second.output(timeout=60)
        go_on.add(name)
        assert await first.output(timeout=60) == name
    assert f"{name} too" not in attempts


async def test_retry_and_fork_count_anew(scene: Scene, client: pgflow.Client, name: str) -> None:
    """Also for what has a row with a moment that is long past."""
    async with worker(scene):
        handle = await client.dispatch(bounded, "failing", name, total=0.2)
        with pytest.raises(pgflow.WorkflowFailed):
            await handle.output(timeout=60)
        scene.do(BACK)
        go_on.add(name)
        await handle.retry()
        assert await handle.output(timeout=60) == "attempt 1"
        fork = await client.fork(handle.id, before="{1}")
        assert await fork.output(timeout=60) == "attempt 1"


@contextmanager
def process(dsn: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process, killed at the end."""
    running = subprocess.Popen(
        [sys.executable, "cli.py", "worker", "tests.activities.timeouts"],
        cwd=ROOT,
        env={**os.environ, "PGFLOW_DATABASE_URL": dsn},
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()


async def test_deaths_of_processes_do_not_move_it(scene: Scene, client: pgflow.Client, name: str) -> None:
    """It counts from the first attempt, whichever process makes the next; by the database's clock alone."""
    counts = "SELECT loop_state #>> '{}' FROM events WHERE status = 'pending' AND loop_state IS NOT NULL"
    running = "SELECT worker_id FROM runs WHERE status = 'running'"
    handle = await client.dispatch(bounded, "enduring", name, total=3600)
    with process(scene.database.dsn):
        (since,) = await until(lambda: scene.all(counts), "the row before the attempt")
    with process(scene.database.dsn):
        before = scene.all(running)
        await until(lambda: scene.all(running) not in ([], before), "the second process")
        await until(lambda: scene.all("SELECT TRUE FROM runs WHERE epoch > 1 AND status = 'running'"), "its claim")
        assert scene.all(counts) == [since]
    scene.do(BACK)
    async with worker(scene):
        with pytest.raises(pgflow.WorkflowFailed, match="did not end within its total_timeout of 3600 s"):
            await handle.output(timeout=60)
    assert name not in attempts


async def test_who_does_not_use_it_writes_no_row_more(scene: Scene, client: pgflow.Client, name: str) -> None:
    go_on.add(name)
    async with worker(scene):
        await (await client.dispatch(bounded, "async", name, silence=3600)).output(timeout=60)
        assert scene.all("SELECT completed_at, loop_state FROM events") == [(None, None)]
