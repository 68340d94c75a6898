"""Workflows that the deaths of processes are suspected of, and how many of them this process takes.

Whoever ends its process is among those that the process held. Held by fewer and fewer at a time, it is soon alone, and
a death with one suspect is proof. One that is suspected three times or more runs alone in its process until it has made
progress, or for a while that doubles with each further death: an innocent one whose steps take hours must not hold up
everybody else for hours.

A process that holds nothing takes it at once. One that is busy leaves it to others for some seconds, then takes nothing
new until what it holds has ended; if that takes too long, it takes it beside the rest: nobody waits for ever.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID
from weakref import WeakSet

from pgflow import forking

if TYPE_CHECKING:
    from pgflow.execution.engine.run import Run

TOGETHER = (125, 15, 1)
"""How many workflows that are suspected once, twice, and more often, a process takes together: 1000 / 8^k."""

APART = 3
"""Suspicions at which a workflow runs alone."""

ALONE = 15.0
"""Seconds for which it does so, after so many suspicions; each further one doubles them."""

LONGEST_ALONE = 900.0
"""Seconds for which it does so, at most."""

PATIENCE = 5.0
"""Seconds for which a busy worker leaves such a workflow to others, at most."""

DRAINS = 15.0
"""Seconds for which it then takes nothing new, at most, so that what it holds may end."""


class Suspects:
    """What one worker holds of them, and what it may take. All workers of a process know of each other: they die
    together.

    Args:
        runs: what the worker holds.
    """

    _workers: ClassVar[WeakSet[Suspects]] = WeakSet()
    _held: ClassVar[dict[Run, tuple[Suspects, int, float]]] = {}
    """Those in this process: whose, how often suspected, and until when alone."""

    def __init__(self, runs: Mapping[UUID, Run]) -> None:
        self._runs = runs
        self._waiting_since: float | None = None
        self._patience = PATIENCE
        self._workers.add(self)

    def took(self, runs: Iterable[Run]) -> None:
        """These have been claimed."""
        now = time.monotonic()
        for run in runs:
            times = run.claimed.suspicions
            alone = min(ALONE * 2.0 ** (times - APART), LONGEST_ALONE) if times >= APART else 0.0
            self._held[run] = self, times, now + alone

    def see(self, most: int) -> None:
        """Note how often the most suspected of those is that are due and wait; 0: none is."""
        if most < APART:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = time.monotonic()
            self._patience = random.uniform(0.1, 1.0) * PATIENCE

    @property
    def apart(self) -> bool:
        """Whether nothing else may be claimed now: one runs alone in this process, or is to."""
        since = self._waiting_since
        if since is not None and 0 <= time.monotonic() - since - self._patience < DRAINS:
            return True
        return bool(self._held) and self._one_runs_alone()

    def places(self, free: int) -> tuple[int, int, int]:
        """How many of those suspected once, twice, and more often may be taken now.

        Args:
            free: how many workflows the worker has room for.
        """
        if free <= 0 or self._one_runs_alone():
            return 0, 0, 0
        since = self._waiting_since
        if since is not None and (self._nothing_else_runs() or time.monotonic() - since - self._patience >= DRAINS):
            return 0, 0, TOGETHER[2]
        held = [times for _, times, _ in self._held.values()]
        once, twice = (max(0, most - held.count(times)) for times, most in enumerate(TOGETHER[:2], 1))
        return min(once, free), min(twice, free), 0

    def _one_runs_alone(self) -> bool:
        self._forget()
        now = time.monotonic()
        return any([until > now for _, _, until in self._held.values()])

    def _nothing_else_runs(self) -> bool:
        """Whether this process holds nothing but what has been alone for long enough."""
        proven = [times for _, times, _ in self._held.values() if times >= APART]
        return len(proven) == sum([len(worker._runs) for worker in self._workers])

    def _forget(self) -> None:
        """Those that have made progress, or have left, are suspected no more."""
        for run, (worker, _, _) in list(self._held.items()):
            if worker._runs.get(run.claimed.workflow_id) is not run or not run.outgoing.suspected:
                self._held.pop(run, None)

    @classmethod
    def after_fork(cls) -> None:
        """The workers of this process were the parent's."""
        forking.leave(cls._workers, cls._held)
        cls._workers, cls._held = WeakSet(), {}


forking.at_fork(Suspects.after_fork)
