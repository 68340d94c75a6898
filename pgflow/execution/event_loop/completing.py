"""What `asyncio.wait` and `asyncio.as_completed` are given: in an order that a replay repeats, or refused.

Both make a set of their arguments. In a set, tasks, the futures that a run's loop has made and those that `gather`
returns are ordered by their numbers (`tasks.py`); coroutines, and futures that the code has made by calling
`asyncio.Future`, by their addresses. The loop cannot see a set, but asyncio asks it for a task or a future from within
these functions, and their frames hold their arguments. So the functions need not be replaced, which other threads use
as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from inspect import iscoroutine
from types import CodeType, FrameType
from typing import Any

from pgflow.errors import NondeterminismError

_INSTEAD = "`asyncio.create_task(...)` makes a task of each, which keeps its place"


def _codes() -> tuple[CodeType, str, tuple[CodeType, ...]]:
    """The code that makes tasks for `as_completed`, the name of its argument, and the code between it and the loop."""
    between = {asyncio.ensure_future.__code__}
    inner = getattr(asyncio.tasks, "_ensure_future", None)  # Python 3.11
    if inner is not None:
        between.add(inner.__code__)
    iterator = getattr(asyncio.tasks, "_AsCompletedIterator", None)  # Python 3.13
    code: CodeType = (asyncio.as_completed if iterator is None else iterator.__init__).__code__
    between.update(one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == "<setcomp>")
    return code, "fs" if iterator is None else "aws", tuple(between)


_KEYS = type(dict[str, int]().keys())
"""These count as sets but are iterated in the order of insertion."""

_COMPLETING, _ARGUMENT, MAKERS = _codes()
"""MAKERS: what asks the loop for tasks of coroutines that it was given. (No set: the hash of code is a long one.)"""

_WAITING: CodeType = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]

_GETTING: CodeType = asyncio.Queue.get.__code__


def _completions() -> tuple[CodeType | None, CodeType | None]:
    """The code of `as_completed` that waits for the next end, and the code that is called when one of its futures has
    ended.
    """
    iterator = getattr(asyncio.tasks, "_AsCompletedIterator", None)  # Python 3.13
    if iterator is not None:
        return iterator._wait_for_one.__code__, iterator._handle_completion.__code__
    inner = {one.co_name: one for one in asyncio.as_completed.__code__.co_consts if isinstance(one, CodeType)}
    return inner.get("_wait_for_one"), inner.get("_on_completion")


_NEXT, _ENDED = _completions()


def coroutines_to_complete(frame: FrameType | None) -> list[Any] | None:
    """What `as_completed` makes tasks of, in the order in which it was given; None when the task is not made for it.

    Args:
        frame: the frame that has asked the loop for a task.

    Raises:
        NondeterminismError: they are in the order of their addresses.
    """
    while frame is not None and frame.f_code in MAKERS:
        frame = frame.f_back
    if frame is None or frame.f_code is not _COMPLETING:
        return None
    given = frame.f_locals[_ARGUMENT]
    if isinstance(given, AbstractSet | Iterator) and type(given) is not _KEYS or not isinstance(given, Iterable):
        raise _refusal(
            f"asyncio.as_completed was given coroutines in a {type(given).__name__}, which it walks through in the "
            "order of their addresses: another one on each replay. Give it a list: `asyncio.as_completed([...])`",
            f"coroutines in a {type(given).__name__}",
        )
    items = list(dict.fromkeys(given))
    strange = [item for item in items if not iscoroutine(item) and not _stands_by_number(item)]
    if strange and len(items) > 1:
        raise _refusal(
            f"asyncio.as_completed was given a {type(strange[0]).__name__}, whose place in a set is its address: "
            f"another one on each replay. {_INSTEAD}",
            f"a {type(strange[0]).__name__}",
        )
    ended = sum(1 for item in items if isinstance(item, asyncio.Future) and item.done())
    if ended > 1:
        raise _refusal(
            "asyncio.as_completed was given coroutines beside tasks that have ended already, whose order would "
            f"depend on the coroutines' addresses. {_INSTEAD}",
            "coroutines beside ended tasks",
        )
    return [item for item in items if iscoroutine(item)]


def check_waits(frame: FrameType, ready: Iterable[Any]) -> None:
    """Refuse to wait for several futures of which one is ordered in sets by its address.

    Args:
        frame: the frame that has asked the loop for a future.
        ready: the callbacks that are ready.

    Raises:
        NondeterminismError: one of them is.
    """
    if frame.f_code is _WAITING:
        _check_together("asyncio.wait", frame.f_locals["fs"])
    elif frame.f_code is _GETTING and frame.f_back is not None and frame.f_back.f_code is _NEXT:
        # Those that had ended already when they were given are ready, in the order of their set; the others come as
        # they end.
        ended: dict[Any, list[Any]] = {}
        for handle in ready:
            callback = handle._callback
            if not handle._cancelled and getattr(callback, "__code__", None) is _ENDED:
                ended.setdefault(callback, []).append(handle._args[0])
        for futures in ended.values():
            _check_together("asyncio.as_completed", futures)


def _check_together(function: str, futures: Collection[Any]) -> None:
    strange = [future for future in futures if not _stands_by_number(future)]
    if strange and len(futures) > 1:
        raise _refusal(
            f"{function} was given a {type(strange[0]).__name__} beside others: its place in their set is its "
            "address, another one on each replay. Make futures with `asyncio.get_running_loop().create_future()` "
            "instead of `asyncio.Future()`; they keep their places, as tasks do",
            f"a {type(strange[0]).__name__}",
        )


def _stands_by_number(future: Any) -> bool:
    by_address: Any = object.__hash__
    return type(future).__hash__ is not by_address


def _refusal(message: str, found: str) -> NondeterminismError:
    return NondeterminismError(message, expected="an order that a replay repeats", found=found)
