"""Loads in advance what the first workflow of a process would otherwise wait for: pydantic loads half of itself when it
first meets a class.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgflow.codec import decode


@dataclass
class _Anything:
    """A class to convert to."""


def warm_up() -> None:
    """Load what conversions need. Takes tens of milliseconds, once a process."""
    decode("{}", _Anything, what="nothing")
