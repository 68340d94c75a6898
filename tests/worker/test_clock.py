"""A worker whose wall clock is wrong: all times are the database's. About 8 seconds."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

import pgflow
from tests.store.scene import Scene
from tests.worker import flows


def set_clocks(monkeypatch: pytest.MonkeyPatch, wrong: timedelta) -> None:
    """Let the engine's code see a wall clock that is wrong by so much."""
    right = time.time

    class AnyTime(type):
        def __instancecheck__(cls, found: object) -> bool:
            return isinstance(found, datetime)

    class Wrong(datetime, metaclass=AnyTime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]  # a plain one on purpose
            return datetime.now(tz) + wrong

        @classmethod
        def utcnow(cls) -> datetime:  # type: ignore[override]  # a plain one on purpose
            return datetime.utcnow() + wrong

    for name, module in list(sys.modules.items()):
        if name.startswith("pgflow.") and getattr(module, "datetime", None) is datetime:
            monkeypatch.setattr(module, "datetime", Wrong)
    monkeypatch.setattr(time, "time", lambda: right() + wrong.total_seconds())


@pytest.mark.parametrize("hours", [-3, 3])
async def test_a_wrong_wall_clock_changes_nothing(
    scene: Scene, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    set_clocks(monkeypatch, timedelta(hours=hours))
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, poll=0.1):
        later = await client.dispatch(flows.sleeper, 1, 3600)
        handles = [
            await client.dispatch(flows.sleeper, 1, 1.2),
            await client.dispatch(flows.hurried, 1.2),
            await client.dispatch(flows.retried),
            await client.dispatch(flows.turning, 25),
        ]
        assert [await handle.output(30) for handle in handles] == [3, "late", ["attempt 2"], 25]
        events = await client.history(later.id)
    sleep = events[1]
    assert sleep.kind == "sleep" and sleep.wake_at is not None
    wanted = sleep.created_at + timedelta(seconds=3600)
    assert abs((sleep.wake_at - wanted).total_seconds()) < 600, "hours off"
    for early, late in (
        ("created_at", "completed_at"),
        ("turn_now", "completed_at"),
    ):
        assert scene.all(f"SELECT * FROM history WHERE {early} > {late} + interval '10 min'") == []
    assert scene.all("SELECT * FROM history WHERE abs(extract(epoch FROM created_at - now())) > 600") == []
    assert scene.all("SELECT * FROM forgotten_events WHERE abs(extract(epoch FROM turn_now - now())) > 600") == []
