"""The worker as the parts of a run see it: where writes go, who starts activities, what time it is.

What a worker does with whole runs (pump them, keep them, let them go) is in `run.Host`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.model.other_arguments import OtherArguments
from pgflow.model.rows import Message
from pgflow.ports import CrossingsPort, JournalPort, LoopsPort


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one workflow.

    Args:
        payload: the largest payload, in bytes of JSON.
        warn_rows: active history rows at which a warning names `ctx.loop`.
        max_rows: active history rows at which the workflow is stopped with an error.
        other_arguments: called for steps that a replay calls with other arguments than the recorded ones; None: they
            are not compared.
        crashes: deaths of processes that ran nothing but its code, without progress, after which it fails.
    """

    payload: int = 1 << 20
    warn_rows: int = 10_000
    max_rows: int = 100_000
    other_arguments: Callable[[Any, OtherArguments], None] | None = None
    crashes: int = 5


class Timer(Protocol):
    """A timer that can be cancelled."""

    def cancel(self) -> None:
        """Do not call back."""
        ...


class Services(Protocol):
    """What the parts of a run need of the worker that it lives in. Everything is called on the worker's event loop.

    `start_activity` and `journal.write` may be called on a stage (`stage.stage`), where a run's own loop is the
    running one: they must not ask asyncio for it.
    """

    def schedule(self, run: Any) -> None:
        """Pump a run in a later callback. (`Host`, which knows `Run`, says more.)"""
        ...

    @property
    def journal(self) -> JournalPort:
        """Where rows of history go."""
        ...

    @property
    def loops(self) -> LoopsPort:
        """Where advancements of loops go."""
        ...

    @property
    def crossings(self) -> CrossingsPort:
        """Where what is done to other workflows goes."""
        ...

    @property
    def limits(self) -> Limits:
        """The bounds of a run."""
        ...

    def now(self) -> datetime:
        """The database's time as far as it is known; never ahead of it."""
        ...

    def later(self, seconds: float) -> datetime:
        """The database's time in `seconds` seconds."""
        ...

    def observe_time(self, at: datetime) -> None:
        """Learn that the database's time is at least `at`."""
        ...

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Timer:
        """Call back when the database's time has reached `when`."""
        ...

    def start_activity(self, call: ActivityCall) -> None:
        """Execute one attempt of an activity, now or when there is room."""
        ...

    def attempt_failed(self, activity: str, again: bool) -> None:
        """Count a failed attempt of an activity; `again`: another one follows."""
        ...

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages whose rows are committed, soon; nobody waits for it."""
        ...

    def asked(self) -> None:
        """A committed write has asked something of other workflows: have it delivered soon."""
        ...
