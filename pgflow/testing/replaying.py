"""Replay as a check: today's code over a stored history, without a database, an activity or a timer.

The code gets what history has recorded, in the order in which it was delivered, exactly as a worker gives it. The
replay ends at the first new thing: an activity to run, a moment to wait for, a row to write. A history that ends there
is fine; one that the code does not fit is an error, and so is code that fails where the workflow has not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pgflow.definitions.decorated import not_a_workflow
from pgflow.definitions.descriptors import Workflow
from pgflow.errors import LatentHistory
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.engine.held_back import not_reached
from pgflow.execution.engine.host import Limits
from pgflow.execution.engine.run import Run
from pgflow.execution.event_loop.stage import stage
from pgflow.execution.execute import execute
from pgflow.history.stored import StoredHistory
from pgflow.model.claimed import Claimed
from pgflow.model.other_arguments import OtherArguments
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome
from pgflow.model.rows import Message
from pgflow.model.writes import Advance, Crossing, Inquiry, Write
from pgflow.testing.harness import outside_of_tasks
from pgflow.testing.watching import failure_of, seconds_of, watched

_MOST_TURNS = 10_000
"""How many pumps code may go on for without a step (turns of a loop that call none, for example) before it is left."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of a replay whose code and history fit.

    Attributes:
        id: the workflow whose history it was.
        status: completed, failed or cancelled if the code reached its end; "open" if it goes on where history ends.
        output: what the code returned, converted by its annotation.
        same_output: whether that is what the workflow returned before; None if one of the two returned nothing.
        error: what left the code, if the workflow had failed before as well.
        next_steps: the steps at which the code waits for more than history holds, such as 'sleep at {3}'.
        events: rows of history that it was compared with.
        unreached: rows that the code has not reached because they stand behind a step that is new.
        other_arguments: steps that the code calls with other arguments than the recorded ones. This alone is no error:
            the code may have been changed on purpose. If it has not, its arguments depend on something that no replay
            repeats.
    """

    id: UUID
    status: str
    output: Any
    same_output: bool | None
    error: BaseException | None
    next_steps: tuple[str, ...]
    events: int
    unreached: int
    other_arguments: tuple[OtherArguments, ...] = ()


def replay(workflow: Workflow[Any, Any], history: StoredHistory | Mapping[str, Any] | Path | str) -> Replayed:
    """Run a workflow's code over a stored history; nothing is executed but the workflow's own code, nothing is written.

    Args:
        workflow: today's code.
        history: what `pgflow workflow export` or `client.export` wrote: its text, the loaded document, or a file's
            path.

    Raises:
        HistoryDiverged: the code asks for another step than history holds; with `location`, `expected` and `found`.
        LatentHistory: the code has ended and history holds further steps; likewise.
        NondeterminismError: the code does what a replay could not repeat.
        SerializationError: a recorded value does not fit its annotation any more.
        Exception: whatever else leaves the code, when the workflow has not failed then.
        ValueError: it is no history, or one of a workflow of another name.

    Example:
        replay(checkout, Path("tests/histories/checkout.json"))
    """
    if not isinstance(workflow, Workflow):
        raise not_a_workflow(workflow, "pgflow.testing.replay")
    if isinstance(history, Path):
        stored = StoredHistory.from_json(history.read_text(encoding="utf-8"))
    elif isinstance(history, StoredHistory):
        stored = history
    else:
        stored = StoredHistory.from_json(history)
    if stored.name != workflow.name:
        raise ValueError(
            f'this is a history of workflow "{stored.name}", expected one of "{workflow.name}". Was the workflow '
            f'renamed? `workflow.options(name="{stored.name}")` gives it its old name.'
        )
    return outside_of_tasks(lambda: _Replay(workflow, stored).result())


class _Replay:
    """One replay; its run's `Host` and all that the host gives, which let nothing happen."""

    def __init__(self, workflow: Workflow[Any, Any], stored: StoredHistory) -> None:
        self.journal = self
        self.loops = self
        self.crossings = self
        # None: limits are the worker's, and what is recorded has passed them.
        self.limits = Limits(1 << 62, 1 << 62, 1 << 62, lambda step, other: self._others.append(other))
        self._others: list[OtherArguments] = []
        self._workflow = workflow
        self._stored = stored
        self._scheduled: deque[Run] = deque()
        self._outcome: Outcome | None = None
        self._raised: BaseException | None = None

    def result(self) -> Replayed:
        """Replay to the end of history."""
        stored = self._stored
        claimed = Claimed(
            stored.id,
            stored.name,
            "default",
            1,
            stored.input,
            stored.tags,
            stored.created_at,
            stored.parent_id,
            stored.seed,
            0,
            False,
            stored.now,
            list(stored.events),
            cancellations=stored.cancellations,
            timed_out=seconds_of(stored.error) if stored.status == "failed" else None,
        )
        run = execute(claimed, watched(self._workflow, self._note), self)
        try:
            for _ in range(_MOST_TURNS):
                if not self._scheduled or self._outcome is not None:
                    break
                self._scheduled.popleft()
                run.scheduled = False
                with stage():
                    run.pump()
            return self._judge(run)
        finally:
            run.discard()

    def _note(self, error: BaseException) -> None:
        self._raised = error

    def _judge(self, run: Run) -> Replayed:
        if run.fatal is not None:
            if (
                isinstance(run.fatal, LatentHistory)
                and run.fatal.__cause__ is not None
                and self._stored.status != "failed"
            ):
                raise run.fatal.__cause__  # it left the code while history goes on: it is what has to be mended
            raise run.fatal
        outcome, recorded = self._outcome, self._stored.output
        if isinstance(outcome, Completed):
            output = self._workflow.decode_result(outcome.output)
            same = None if recorded is None else outcome.output == recorded
            return self._replayed("completed", output=output, same_output=same)
        if isinstance(outcome, Cancelled):
            return self._replayed("cancelled")
        if isinstance(outcome, Failed):
            error = failure_of(outcome.error, self._raised)
            if self._stored.status != "failed":
                raise error
            return self._replayed("failed", error=error)
        waiting = [str(step) for step in run.scope.all_unfinished() if not step.is_container]
        return self._replayed(
            "open", next_steps=tuple(waiting), unreached=len(not_reached(run.scope, run.claimed.events))
        )

    def _replayed(
        self,
        status: str,
        output: Any = None,
        same_output: bool | None = None,
        error: BaseException | None = None,
        next_steps: tuple[str, ...] = (),
        unreached: int = 0,
    ) -> Replayed:
        stored = self._stored
        return Replayed(
            stored.id,
            status,
            output,
            same_output,
            error,
            next_steps,
            len(stored.events),
            unreached,
            tuple(self._others),
        )

    # Host: time stands still, and nothing that is asked for happens.

    def now(self) -> datetime:
        return self._stored.now

    def later(self, seconds: float) -> datetime:
        return self._stored.now + timedelta(seconds=seconds)

    def attempt_failed(self, activity: str, again: bool) -> None:
        """Nobody counts."""

    def observe_time(self, at: datetime) -> None:
        raise AssertionError("nothing is committed in a replay")

    def schedule(self, run: Run) -> None:
        if not run.scheduled:
            run.scheduled = True
            self._scheduled.append(run)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> _NoTimer:
        return _NoTimer()

    def start_activity(self, call: ActivityCall) -> None:
        pass

    def publish(self, messages: Sequence[Message]) -> None:
        raise AssertionError("nothing is committed in a replay")

    def asked(self) -> None:
        raise AssertionError("nothing is committed in a replay")

    def keep(self, run: Run) -> bool:
        raise AssertionError("nothing is committed in a replay")

    def finished(self, run: Run, outcome: Outcome | None) -> None:
        raise AssertionError("nothing is committed in a replay")

    # Journal, Loops and Crossings

    def write(self, write: Write) -> None:
        if write.outcome is not None:
            self._outcome = write.outcome

    def advance(self, advance: Advance) -> None:
        pass

    def cross(self, crossing: Crossing) -> None:
        pass

    def ask(self, inquiry: Inquiry) -> None:
        pass


class _NoTimer:
    def cancel(self) -> None:
        pass
