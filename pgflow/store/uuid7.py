"""Ids of version 7 (RFC 9562): made by whoever starts a workflow, in the order of time, so that a retry is harmless.

New ones grow strictly within a process. Derived ones stand for "what this workflow does at this location": made twice,
they are the same.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from uuid import UUID

_VERSION = 0x7 << 76
_VARIANT = 0x2 << 62
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
    return UUID(int=_shaped(milliseconds, low))


def derived(workflow_id: UUID, location: str) -> UUID:
    """The id of what a workflow does to another at a location: the same however often it is computed.

    Args:
        workflow_id: The workflow that acts; its time is the new id's time, so that indexes stay local.
        location: The stored location of the step.
    """
    digest = hashlib.sha256(workflow_id.bytes + location.encode()).digest()
    return UUID(int=_shaped(workflow_id.int >> 80, int.from_bytes(digest[:10], "big")))


def _shaped(milliseconds: int, low: int) -> int:
    """48 bits of time, version, 12 bits, variant, 62 bits; `low` gives the 74 free bits."""
    return (
        (milliseconds & ((1 << 48) - 1)) << 80
        | _VERSION
        | (low >> 62 & 0xFFF) << 64
        | _VARIANT
        | low & ((1 << 62) - 1)
    )
