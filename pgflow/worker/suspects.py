"""Suspects: workflows that may have killed the process that ran them, and how many of them this process takes.

The workflow that killed a process is one of those that the process held. If suspects run in smaller and smaller groups,
the culprit is soon alone, and a death with a single suspect is proof. A workflow that is suspected three times or more
runs alone in its process until it has made progress, or for a while that doubles with each further death: an innocent
one whose steps take hours must not hold up all others for hours.

A process that holds nothing claims such a workflow at once. A busy one leaves it to others for some seconds, then
claims nothing new until what it holds has ended; if that takes too long, it claims the suspect beside the rest, so that
no workflow waits for ever.
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
"""How many workflows suspected once, twice, and more often a process runs together: 1000 / 8^k."""

APART = 3
"""Suspicions at which a workflow runs alone."""

ALONE = 15.0
"""Seconds that it runs alone after `APART` suspicions; each further suspicion doubles them."""

LONGEST_ALONE = 900.0
"""Seconds that it runs alone, at most."""

PATIENCE = 5.0
"""Seconds that a busy worker leaves such a workflow to others, at most."""

DRAINS = 15.0
"""Seconds after that in which it claims nothing new, at most, so that what it holds can end."""


class Suspects:
    """The suspects that one worker holds, and how many it may claim. The workers of a process share this: they die
    together.

    Args:
        runs: the runs that the worker holds.
    """

    _workers: ClassVar[WeakSet[Suspects]] = WeakSet()
    _held: ClassVar[dict[Run, tuple[Suspects, int, float]]] = {}
    """The suspects in this process: which worker holds each, how often it is suspected, until when it runs alone."""

    def __init__(self, runs: Mapping[UUID, Run]) -> None:
        self._runs = runs
        self._waiting_since: float | None = None
        self._patience = PATIENCE
        self._workers.add(self)

    def took(self, runs: Iterable[Run]) -> None:
        """Note that these have been claimed."""
        now = time.monotonic()
        for run in runs:
            times = run.claimed.suspicions
            alone = min(ALONE * 2.0 ** (times - APART), LONGEST_ALONE) if times >= APART else 0.0
            self._held[run] = self, times, now + alone

    def see(self, most: int) -> None:
        """Note the highest number of suspicions among the workflows that are due and wait; 0: there are none."""
        if most < APART:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = time.monotonic()
            self._patience = random.uniform(0.1, 1.0) * PATIENCE

    @property
    def apart(self) -> bool:
        """Whether nothing else may be claimed now, since a suspect runs alone in this process, or is about to."""
        since = self._waiting_since
        if since is not None and 0 <= time.monotonic() - since - self._patience < DRAINS:
            return True
        return bool(self._held) and self._one_runs_alone()

    def places(self, free: int) -> tuple[int, int, int]:
        """How many workflows suspected once, twice, and more often may be claimed now.

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
        """Whether this process holds nothing but suspects that have been alone for long enough."""
        proven = [times for _, times, _ in self._held.values() if times >= APART]
        return len(proven) == sum([len(worker._runs) for worker in self._workers])

    def _forget(self) -> None:
        """Drop those that have made progress or have left memory: they are no longer suspects here."""
        for run, (worker, _, _) in list(self._held.items()):
            if worker._runs.get(run.claimed.workflow_id) is not run or not run.outgoing.suspected:
                self._held.pop(run, None)

    @classmethod
    def after_fork(cls) -> None:
        """Forget the workers: they belong to the parent process."""
        forking.leave(cls._workers, cls._held)
        cls._workers, cls._held = WeakSet(), {}


forking.at_fork(Suspects.after_fork)
