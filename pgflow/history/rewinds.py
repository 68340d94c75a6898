"""Which ids a step has that a rewind has undone: made from its location, they get the number of the last that did.

A workflow keeps a text for each time that it was rewound. It begins with the location before which; a blank and a mark
precede what was undone before that place as well, since results there had come later: `=2,1` that step and all below
it, `+2,1:2,4` what stands from one to the other in their body, `+2,1:` what stands from there to the body's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from pgflow.history.location import subtree

REWOUND = "\x1f"
"""Stands in `runs` behind the name of a workflow that was rewound: older code, which would make its ids without the
number of the rewind, does not find it there."""

Covers = Callable[[str], bool]


def numbered(location: str, rewinds: Sequence[str]) -> str:
    """The location as ids are made from it: with the number of the last rewind that undid it, if one did.

    Args:
        location: The stored location of a step.
        rewinds: A text for each rewind of its workflow, as the table holds them.

    Example:
        numbered("3", ["2"])  # "3@1"
        numbered("1", ["2"])  # "1"
    """
    for number in range(len(rewinds), 0, -1):
        if any(covers(location) for covers in _read(rewinds[number - 1])):
            return f"{location}@{number}"
    return location


@lru_cache(maxsize=1024)
def _read(text: str) -> tuple[Covers, ...]:
    """What a rewind has undone: one condition for each part of its text."""
    before, *marks = text.split(" ")
    return (lambda location: location >= before, *map(_covering, marks))


def _covering(mark: str) -> Covers:
    if mark.startswith("="):
        alone = mark[1:]
        below = subtree(alone)
        return lambda location: location == alone or below[0] <= location < below[1]
    first, _, last = mark[1:].partition(":")
    body = first.rpartition(",")[0]
    end = subtree(last or body)[1] if last or body else "~"
    return lambda location: first <= location < end


def names_of_rewound(names: Iterable[str]) -> list[str]:
    """The names under which `runs` has those workflows of these names that were rewound."""
    return [name + REWOUND for name in names]
