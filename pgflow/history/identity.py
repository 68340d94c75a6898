"""The id of what a step does to another workflow: done again after a crash, it has the same id and changes nothing.

Kind and name are in it, so that another step, which a worker without a lease may still call at that location, has
another.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

_VERSION = 0x7 << 76
_VARIANT = 0x2 << 62


def crossing_id(workflow_id: UUID, location: str, kind: str, name: str) -> UUID:
    """The id, a UUID of version 7: the same however often it is computed.

    Args:
        workflow_id: the workflow that acts; its time is the new id's time, so that indexes stay local.
        location: the stored location of the step, `numbered` if it was rewound.
        kind: the step's kind.
        name: the step's name.
    """
    digest = hashlib.sha256(workflow_id.bytes + f"{location} {kind} {name}".encode()).digest()
    return UUID(int=shaped(workflow_id.int >> 80, int.from_bytes(digest[:10], "big")))


def shaped(milliseconds: int, low: int) -> int:
    """A UUID of version 7 as a number: 48 bits of time, version, 12 bits, variant, 62 bits; `low` gives the 74 free
    bits.
    """
    return (
        (milliseconds & ((1 << 48) - 1)) << 80 | _VERSION | (low >> 62 & 0xFFF) << 64 | _VARIANT | low & ((1 << 62) - 1)
    )
