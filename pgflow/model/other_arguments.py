"""What a replay reports about a step that is called with other arguments than the recorded ones."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN = 200
"""Characters of arguments in a message."""


@dataclass(frozen=True, slots=True)
class OtherArguments:
    """A step that is called with other arguments than it was.

    Attributes:
        location: where it stands, as displayed.
        step: its kind and name.
        recorded: the arguments that history holds, as JSON.
        given: those of today.
    """

    location: str
    step: str
    recorded: str
    given: str

    def __str__(self) -> str:
        return (
            f"{self.step} at {self.location} has other arguments: recorded {shortened(self.recorded)}, given "
            f"{shortened(self.given)}"
        )


def shortened(text: str) -> str:
    """Arguments as a message shows them."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
