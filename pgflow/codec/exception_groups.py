"""Exception groups, taken apart: by what they hold, whatever their classes say of it."""

from __future__ import annotations


def is_group(error: BaseException) -> bool:
    """Whether an error is a group. By its class alone: an instance may say anything of itself."""
    return issubclass(type(error), BaseExceptionGroup)


def inside(group: BaseException) -> tuple[BaseException, ...]:
    """What a group holds itself."""
    found: tuple[BaseException, ...] = BaseExceptionGroup.__dict__["exceptions"].__get__(group)
    return found


def everything_in(error: BaseException) -> list[BaseException]:
    """An error and, if it is a group, all in it, each once: groups may share what they hold, two to the power of forty
    ways.

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
