"""The worker as a run sees it: where it hands its writes, starts its activities and asks for the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from pgflow.model.outcomes import Outcome
from pgflow.model.rows import Message
from pgflow.ports import Crossings, Journal, Loops

if TYPE_CHECKING:
    from pgflow.execution.activities.runner import ActivityCall
    from pgflow.execution.engine.recorded_arguments import OtherArguments
    from pgflow.execution.engine.run import Run
    from pgflow.execution.engine.step import Step


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one workflow.

    Parameters:
        payload: the largest payload, in bytes of JSON.
        warn_rows: active history rows at which a warning names `ctx.loop`.
        max_rows: active history rows at which the workflow is stopped with an error.
        other_arguments: told of steps that a replay calls with other arguments than the recorded ones; None: they are
            not compared.
        crashes: deaths of processes that ran nothing but its code, without progress, after which it fails.
    """

    payload: int = 1 << 20
    warn_rows: int = 10_000
    max_rows: int = 100_000
    other_arguments: Callable[[Step, OtherArguments], None] | None = None
    crashes: int = 5


class Timer(Protocol):
    """A timer that can be cancelled."""

    def cancel(self) -> None:
        """Do not call back."""
        ...


class Host(Protocol):
    """What a run needs of the worker that it lives in. Everything is called on the worker's event loop.

    `schedule`, `start_activity` and `journal.write` may be called on a stage (`run_loop.stage`), where a run's own loop
    is the running one: they must not ask asyncio for it.
    """

    @property
    def journal(self) -> Journal:
        """Where rows of history go."""
        ...

    @property
    def loops(self) -> Loops:
        """Where advancements of loops go."""
        ...

    @property
    def crossings(self) -> Crossings:
        """Where what is done to other workflows goes."""
        ...

    @property
    def limits(self) -> Limits:
        """The bounds of a run."""
        ...

    def now(self) -> datetime:
        """The database's time, as well as it is known; never ahead of it."""
        ...

    def later(self, seconds: float) -> datetime:
        """The database's time in so many seconds."""
        ...

    def observe_time(self, at: datetime) -> None:
        """Learn that the database's time is at least `at`."""
        ...

    def schedule(self, run: Run) -> None:
        """Pump `run` in a later callback; once, however often it is asked before that."""
        ...

    def call_at(self, when: datetime, callback: Callable[[], None]) -> Timer:
        """Call back when the database's time has reached `when`."""
        ...

    def start_activity(self, call: ActivityCall) -> None:
        """Execute one attempt of an activity, now or when there is room."""
        ...

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages whose rows are committed, soon; nobody waits for it."""
        ...

    def asked(self) -> None:
        """Something has been asked of other workflows by a write that is committed: see to it that it is delivered
        soon.
        """
        ...

    def keep(self, run: Run) -> bool:
        """Whether `run`, which has just suspended, stays in memory: `Run.resume` goes on with it without a replay."""
        ...

    def finished(self, run: Run, outcome: Outcome | None) -> None:
        """`run` has ended, suspended or left memory: its outcome is committed, or (None) its lease was lost."""
        ...
