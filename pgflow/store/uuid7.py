"""Ids of version 7 (RFC 9562): made by whoever starts a workflow, in the order of time, so that a retry is harmless.

They grow strictly within a process.
"""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

from pgflow.history.identity import shaped

_STEP_BITS = 32
"""The random part starts anywhere below half of what 74 bits hold and grows by up to 2**32 a step."""

_lock = threading.Lock()
_last_ms = 0
_last_random = 0


def uuid7() -> UUID:
    """A new id, greater than all that this process made before.

    Example:
        workflow_id = uuid7()
    """
    global _last_ms, _last_random
    fresh = int.from_bytes(os.urandom(14), "big")
    now = time.time_ns() // 1_000_000
    with _lock:
        if now > _last_ms:
            _last_ms = now
            _last_random = fresh >> 39  # 73 bits: room to grow
        else:
            _last_random += 1 + (fresh & ((1 << _STEP_BITS) - 1))
            if _last_random >> 74:
                _last_ms += 1
                _last_random = fresh >> 39
        milliseconds, low = _last_ms, _last_random
    return UUID(int=shaped(milliseconds, low))
