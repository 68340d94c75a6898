"""Tasks and futures of a run. In a set they are ordered by their numbers, not by their addresses in memory.

`TaskGroup` cancels the members of a set, and `asyncio.wait` returns them; their order has to be the same on replay. So
a task is numbered among those that the same task makes, whatever others do meanwhile. After each turn of a loop the
numbers go on from a multiple of the block, since replay skips turns: their lower bits, which decide the order, are the
same. Futures are numbered in the same way, and so is what `asyncio.gather` returns, when its hash is first asked for.
The higher bits tell the runs apart: asyncio keeps all tasks of the process in one set, and if the first tasks of a
thousand runs all had the same hash, each would be searched for among all the others.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

_NUMBER_BITS = 12
PLACE_BITS = 2**48 - 1
"""How a hash is composed: the number in the lower bits decides in the sets of one run; together they have no more bits
than Python keeps.
"""

BLOCK = 1 << _NUMBER_BITS
"""Numbers go on at a multiple of this after code that made tasks and that replay skips."""


def hash_of(place: int, number: int) -> int:
    """The hash of an object by its number among those that a task makes."""
    return place << _NUMBER_BITS | number


_CHILD_DONE = asyncio.TaskGroup._on_task_done.__code__
"""The code that asyncio runs when a child of a group has ended."""


class RunTask(asyncio.Task[T]):
    """A task with a number."""

    __slots__ = ("_hash", "cancelled_at", "cancelled_by", "cancels", "eager", "futures", "made", "place")

    def __init__(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        place: int,
        number: int,
        **options: Any,
    ) -> None:
        self._hash = hash_of(place, number)
        self.place = (place * 1_000_003 + number) & PLACE_BITS
        """Tells apart what the tasks of a run make: from the seed and the numbers of the tasks above."""
        self.made = 0
        """Tasks that this one has made."""
        self.futures = 0
        """Futures that it has made."""
        self.cancels = 0
        """How often it was cancelled, not counting the cancellations by which a `TaskGroup` ends its own wait."""
        self.cancelled_at = -1
        """The place in the order of results at which it was last cancelled."""
        self.cancelled_by: object = None
        """The `ctx.timeout` block that did it, if one did."""
        self.eager = bool(options.get("eager_start"))
        """Whether it begins at once within the code that makes it, which goes on when the task first waits."""
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._hash

    def cancel(self, msg: Any | None = None) -> bool:
        """Request cancellation; the one by which a `TaskGroup` ends its own wait is not counted, where asyncio forgets
        to take it back.

        Before Python 3.13 it did when a child failed while the block was left already: `cancelling()` stayed one too
        high, and a timeout around the group took its own cancellation for somebody else's.
        """
        asked = super().cancel(msg)
        if asked:
            caller = sys._getframe(1)
            if caller.f_code is not _CHILD_DONE:
                order = self.get_loop().order  # type: ignore[attr-defined]
                self.cancels += 1
                self.cancelled_at = -1 if order is None else order.passed
                self.cancelled_by = None
            elif sys.version_info < (3, 13) and caller.f_locals["self"]._exiting:
                self.uncancel()
        return asked


class RunFuture(asyncio.Future[T]):
    """A future with a number."""

    __slots__ = ("_hash",)

    def __init__(self, stands: int, loop: asyncio.AbstractEventLoop) -> None:
        self._hash = stands
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._hash


def number_groups(kind: type[Any]) -> None:
    """Give what `asyncio.gather` returns on loops of this kind a hash by number (`next_future`).

    It is made without a call to the loop, from a class of asyncio's own. So this is the one thing in asyncio that is
    replaced; on all other loops and in all other threads it behaves as before.
    """
    group: Any = getattr(asyncio.tasks, "_GatheringFuture", None)
    if group is None:
        return

    def stands(self: Any) -> int:
        loop = self.get_loop()
        if type(loop) is not kind:
            return object.__hash__(self)
        number: int | None = getattr(self, "_pgflow_number", None)
        if number is None:
            number = self._pgflow_number = loop.next_future()
        return number

    group.__hash__ = stands
