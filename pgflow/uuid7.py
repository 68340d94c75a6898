"""UUIDs of version 7 (RFC 9562), which sort by time. The caller that starts a workflow makes its id, so that a retry is
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
"""The millisecond for which the last id was made."""

MOMENT = 0.01
"""Seconds that a listener waits before it looks at a workflow with a fresh id: it has hardly ended yet, and the
notification of its end comes first.
"""

_lock = threading.Lock()
_last_ms = 0
_last_random = 0


def _begin_anew() -> None:
    """In a forked child: its ids must not follow closely after its parent's last one, as its siblings' would."""
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
