"""Taking exception groups apart by what they actually hold, whatever their classes say about it."""

from __future__ import annotations


def is_group(error: BaseException) -> bool:
    """Whether an error is a group. Only its class counts: an instance may claim anything."""
    return issubclass(type(error), BaseExceptionGroup)


def inside(group: BaseException) -> tuple[BaseException, ...]:
    """The direct members of a group."""
    found: tuple[BaseException, ...] = BaseExceptionGroup.__dict__["exceptions"].__get__(group)
    return found


def everything_in(error: BaseException) -> list[BaseException]:
    """An error and, if it is a group, everything in it, each once: groups may share members, so that there are 2 ** 40
    ways to reach one.

    Example:
        >>> everything_in(ExceptionGroup("both", [OSError(), ValueError()]))
        [ExceptionGroup('both', [OSError(), ValueError()]), ValueError(), OSError()]
    """
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) not in found:
            found[id(one)] = one
            if is_group(one):
                waiting.extend(inside(one))
    return list(found.values())
