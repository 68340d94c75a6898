"""What a run does to other workflows, each crossing in its own transaction, and how it learns how they ended.

    started -> gathered -> at rest: handed over -> in flight -> committed: its answer is recorded like any result
                  |
                  '-> cancelled, timed out, abandoned: never handed over

What is done to another workflow cannot be undone. So nothing is handed over that a cancellation or a timeout is
about to end, and these wait for the results of what is in flight. A crash after the commit is harmless: the replay does
the same under the same id, which changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from pgflow.execution.engine.interfaces import AwaitingView, CrossingView, RunView, StepView
from pgflow.execution.engine.step import Step
from pgflow.history.identity import crossing_id
from pgflow.history.rewinds import numbered
from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent, Standing
from pgflow.model.writes import Crossing, Inquiry

PAUSE_EACH = 0.0001
"""Seconds per child asked about before the ones still running are asked about again. Otherwise each child that ends
would cost a question about all the others."""

LONGEST_PAUSE = 0.25
"""The most seconds that pass before children are asked about again."""


class CrossingStep(Step):
    """A step that does something to another workflow."""

    __slots__ = ()

    def start(self) -> None:
        self.scope.run.crossings.gather(self)

    def stop(self) -> None:
        self.scope.run.crossings.withdraw(self)

    def command(self, id: UUID) -> Sending | Dispatch:
        """What to do, under an id that is the same whenever this step does it."""
        raise NotImplementedError  # pragma: no cover — every kind has its own

    def answered(self, answer: Any) -> None:
        """The crossing has committed: record its answer."""
        raise NotImplementedError  # pragma: no cover — every kind has its own


class AwaitingStep(Step):
    """A step that waits until another workflow has ended."""

    awaits_child = True
    __slots__ = ("child_id",)

    child_id: UUID

    def start(self) -> None:
        run = self.scope.run
        run.crossings.await_end(self)
        run.park(self, None)

    def stop(self) -> None:
        self.scope.run.crossings.forget(self)

    def answered(self, standing: Standing | None) -> None:
        """Record how the other workflow ended; None: there is no such workflow."""
        raise NotImplementedError  # pragma: no cover — every kind has its own


class RunCrossings:
    """The crossings and the questions of one run.

    Args:
        run: hands over at rest, and gets the answers.
    """

    __slots__ = (
        "_ask_again_at",
        "_asked_at",
        "_asking",
        "_in_flight",
        "_run",
        "_unasked",
        "awaiting",
        "gathered",
    )

    def __init__(self, run: RunView) -> None:
        self._run = run
        self.gathered: dict[CrossingView, None] = {}
        """Crossings that wait to be handed over."""
        self._in_flight: dict[CrossingView, None] = {}
        self.awaiting: dict[AwaitingView, None] = {}
        """Steps that wait for the ends of other workflows."""
        self._unasked: list[AwaitingView] = []
        self._asked_at = -1
        self._ask_again_at = 0.0
        self._asking = False

    # Crossings

    @property
    def in_flight(self) -> bool:
        """Whether something is being done to another workflow now."""
        return bool(self._in_flight)

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way, or will be."""
        return bool(self._in_flight or self.gathered) or self._asking

    def in_flight_under(self, timeout: Any) -> bool:
        """Whether a crossing that a timeout covers is in flight."""
        return any(timeout in step.covering for step in self._in_flight)

    def gather(self, step: CrossingView) -> None:
        """Gather a crossing; it is handed over when the run is at rest."""
        self.gathered[step] = None

    def withdraw(self, step: CrossingView) -> None:
        """Drop a crossing that has not been handed over yet."""
        self.gathered.pop(step, None)

    def hand_over(self, held_back: Callable[[StepView], bool]) -> None:
        """At rest: hand over the gathered crossings, and ask the questions that are due.

        Args:
            held_back: whether a step is about to be cancelled.
        """
        run = self._run
        if self.gathered and not run.claimed.cancel_requested:
            for step in [step for step in self.gathered if not held_back(step)]:
                del self.gathered[step]
                self._in_flight[step] = None
                run.host.crossings.cross(self._crossing(step))
        self._ask()

    def _crossing(self, step: CrossingView) -> Crossing:
        claimed = self._run.claimed
        location = numbered(step.location, claimed.rewinds) if claimed.rewinds else step.location
        id = crossing_id(claimed.workflow_id, location, step.kind, step.name)

        def done(crossing: Crossing, answer: Sent | Dispatched) -> None:
            self._done(step, answer)

        def refused(crossing: Crossing, error: BaseException) -> None:
            self._in_flight.pop(step, None)
            self._run.lost(error)

        return Crossing(claimed.workflow_id, claimed.epoch, step.command(id), done, refused, step.location)

    def _done(self, step: CrossingView, answer: Sent | Dispatched) -> None:
        self._in_flight.pop(step, None)
        if not step.settled and not step.finished:
            self._run.finish_together([partial(step.answered, answer)])
        else:
            self._run.finish_together([])

    # Questions

    def await_end(self, step: AwaitingView) -> None:
        """Ask how the step's workflow has ended: at rest, and at any news of children, until it has ended."""
        self.awaiting[step] = None
        self._unasked.append(step)

    def forget(self, step: AwaitingView) -> None:
        """The step no longer waits."""
        self.awaiting.pop(step, None)

    def _ask(self) -> None:
        """Ask about all children when the mailbox has grown, otherwise about those not asked about yet.

        The place in the mailbox is read before the question is put: a child that ends afterwards takes a later place,
        and the run does not go to sleep on that. When there are many children, they are not asked about at every piece
        of news but a little later, all together.
        """
        mailbox = self._run.claimed.mailbox
        if self._asking or not (self.awaiting and (self._unasked or mailbox > self._asked_at)):
            return
        again = mailbox > self._asked_at
        steps = self.awaiting if again else self._unasked
        asked = [step for step in steps if step in self.awaiting]
        self._unasked = []
        self._asked_at = mailbox
        if asked:
            self._asking = True

            def answered(inquiry: Inquiry, found: Mapping[UUID, Standing | None]) -> None:
                self._answered(asked, found)

            ids = list(dict.fromkeys(step.child_id for step in asked))
            now = time.monotonic()
            wait = max(0.0, self._ask_again_at - now) if again else 0.0
            self._ask_again_at = now + wait + min(PAUSE_EACH * len(ids), LONGEST_PAUSE)
            self._run.host.crossings.ask(Inquiry(ids, answered, wait))

    def _answered(self, asked: list[AwaitingView], found: Mapping[UUID, Standing | None]) -> None:
        self._asking = False
        self._run.finish_together(
            [
                partial(self._ended, step, found[step.child_id])
                for step in asked
                if step.child_id in found and step in self.awaiting
            ]
        )

    def _ended(self, step: AwaitingView, standing: Standing | None) -> None:
        self.awaiting.pop(step, None)
        step.answered(standing)
