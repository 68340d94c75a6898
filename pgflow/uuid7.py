"""Ids of version 7 (RFC 9562): made by the caller that starts a workflow, in the order of time, so that a retry is
harmless.

They grow strictly within a process: the random part of a millisecond's first id is anywhere below half of what 74 bits
hold, and grows by up to 2**32 a step.
"""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

from pgflow import forking
from pgflow.history.identity import shaped

FRESH = 100
"""Milliseconds for which an id has just been made."""

MOMENT = 0.01
"""Seconds for which whoever listens for the end of a workflow with a fresh id waits before looking: it has hardly ended
yet, and the word of its end comes first."""

_lock = threading.Lock()
_last_ms = 0
_last_random = 0


def _begin_anew() -> None:
    """In a forked child: its ids are not to follow closely upon the last one of its parent, as those of its siblings
    would.
    """
    global _lock, _last_ms, _last_random
    _lock, _last_ms, _last_random = threading.Lock(), 0, 0


forking.at_fork(_begin_anew)


def uuid7() -> UUID:
    """A new id, greater than all that this process made before.

    Example:
        workflow_id = uuid7()
    """
    return uuid7s(1)[0]


def uuid7s(count: int) -> list[UUID]:
    """New ids, each greater than the one before and than all that this process made before."""
    global _last_ms, _last_random
    steps = memoryview(os.urandom(4 * count)).cast("I")
    fresh = int.from_bytes(os.urandom(10), "big") >> 7  # 73 bits: room to grow
    now = time.time_ns() // 1_000_000
    numbers = []
    with _lock:
        if now > _last_ms:
            _last_ms, _last_random = now, fresh
        for step in steps:
            _last_random += 1 + step
            if _last_random >> 74:
                _last_ms += 1
                _last_random = fresh
            numbers.append(shaped(_last_ms, _last_random))
    return [UUID(int=number) for number in numbers]


def is_fresh(id: UUID) -> bool:
    """Whether an id was made a moment ago, by its time and this machine's clock: enough to decide when to
    look.
    """
    return 0 <= time.time_ns() // 1_000_000 - (id.int >> 80) < FRESH
