"""Removal of workflows that have been kept long enough: what a sweeper does of it while it has the chore.

    names with something due -> a batch of each, again and again -> nothing due -> the chore is done until the next is

It works a share of the time, so that other work is not slowed down. As long as what is due grows older all the same,
since workflows end faster than they go, the share grows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from pgflow import faults

BATCH = 100
"""The most workflows that one statement removes."""

SHARE = 0.1
"""The share of the time that is spent on it, at least."""

STRETCH = 30.0
"""Seconds after which the other chores get their turn."""

SOONEST, LATEST = 1.0, 3600.0
"""Seconds until the next look, within these bounds."""

AGAIN = 60.0
"""The most seconds until what was due and could not go is looked at again."""

_START = ("-infinity", UUID(int=0))

Ask = Callable[..., Awaitable[list[tuple[Any, ...]]]]


class Retaining:
    """The chore, for one worker.

    Args:
        ask: Executes a statement by its name, with parameters.
        declared: How long the worker's code says that its workflows are kept, in seconds, by name; None: it does not.
    """

    def __init__(self, ask: Ask, declared: Mapping[str, float | None]) -> None:
        self._ask = ask
        self._declared = declared
        self._told = False
        self._share = SHARE
        self._latest = 0.0
        self.removed = 0
        """Workflows removed so far."""

    async def declare(self) -> None:
        """Tell the database once what the code says."""
        if not self._told:
            names = sorted(self._declared)
            await self._ask("retention_declare", names=names, keeps=[self._declared[name] for name in names])
            self._told = True

    async def remove(self) -> float | None:
        """Remove what is due, for a while; seconds until there is more to do, None if the lease was lost."""
        began = time.monotonic()
        rules = await self._ask("retention_names")
        places = {(failed, name): _START for failed, name, _, due in rules if due <= 0}
        stays = False
        while places:
            latest = 0.0
            for failed, name, keep, _ in rules:
                if (place := places.get((failed, name))) is None:
                    continue
                if time.monotonic() - began > STRETCH:
                    return 0.0
                start = time.monotonic()
                answer = await self._ask(
                    "chore_retention", failed=failed, name=name, keep=keep, at=place[0], id=place[1], rows=BATCH
                )
                if not answer:
                    return None
                ((at, id, late, found, removed, pieces),) = answer
                self.removed += removed
                latest = max(latest, late or 0.0)
                stays = stays or found > removed
                if found < BATCH and not pieces:
                    del places[failed, name]
                elif not pieces:
                    places[failed, name] = (at, id)
                worked = time.monotonic() - start
                await faults.reach("sweeper.after_retention")
                await asyncio.sleep(min(worked / self._share - worked, 5.0))
            self._pace(latest)
        pause: float = min([LATEST, *(due for *_, due in rules if due > 0)])
        if stays or any(due <= 0 for *_, due in rules):
            pause = min([pause, AGAIN, *(keep / 100 for *_, keep, _ in rules)])
        return max(SOONEST, pause)

    def _pace(self, latest: float) -> None:
        """Work more while what is due grows older, and less else."""
        grows = latest > self._latest
        self._share = min(1.0, self._share * 1.25) if grows else max(SHARE, self._share * 0.95)
        self._latest = latest
