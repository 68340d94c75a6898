"""What the first workflow of a process would wait for, done before: pydantic loads half of itself when it first meets a
class.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgflow.codec import decode


@dataclass
class _Anything:
    """A class to convert to."""


def warm_up() -> None:
    """Load what conversions need: tens of milliseconds, once in a process."""
    decode("{}", _Anything, what="nothing")
