"""The signals that have been delivered to a run and that no listen has taken yet, in the order of their delivery."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from pgflow.model.rows import Signal


class Mailbox:
    """The mailbox of one run, as far as it is in memory.

    Args:
        signals: what the claim brought.
    """

    __slots__ = ("_signals",)

    def __init__(self, signals: Iterable[Signal]) -> None:
        self._signals = list(signals)

    def __bool__(self) -> bool:
        return bool(self._signals)

    def add(self, signals: Iterable[Signal]) -> None:
        """Add signals that have been delivered."""
        self._signals.extend(signals)

    def take(self, names: Container[str], limit: int, fits: Callable[[Signal], bool]) -> list[Signal]:
        """Take out the first signals of these names that fit, at most `limit`. Those before them that do not fit are
        taken out as well.
        """
        places: list[int] = []
        taken: list[Signal] = []
        for place, signal in enumerate(self._signals):
            if signal.name in names:
                places.append(place)
                if fits(signal):
                    taken.append(signal)
                    if len(taken) == limit:
                        break
        for place in reversed(places):
            del self._signals[place]
        return taken
