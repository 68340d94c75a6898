"""Forked processes: what the parent had open stays the parent's, and the child starts afresh.

A forked child has copies of everything: of the sockets on which the parent talks to the database, and of locks held by
threads that do not exist in the child. So at its very start the child replaces each such socket with a dead end (then
nothing it does, not even closing a connection, reaches the parent's), and all objects that keep connections, threads or
locks start again without any.

The parent's objects stay in memory: collecting them would run code of theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet


class Forked(Protocol):
    """An object that has to start afresh in a child."""

    def after_fork(self) -> None:
        """Start afresh: called in the child, before anything else happens there."""
        ...


class _Socket(Protocol):
    def fileno(self) -> int: ...


_watched: WeakSet[Any] = WeakSet()
_sockets: WeakSet[Any] = WeakSet()
_steps: list[Callable[[], None]] = []
_left_behind: list[Any] = []
"""The parent's, in a child."""


def watch(one: Forked) -> None:
    """Call an object's `after_fork` in each child of a fork, for as long as the object exists."""
    _watched.add(one)


def watch_socket(one: _Socket) -> None:
    """Keep the children of a fork away from a socket, given by an object that has it as `fileno()`; a closed one may
    raise any `Exception` there.
    """
    _sockets.add(one)


def at_fork(step: Callable[[], None]) -> None:
    """Call a function in each child of a fork from now on."""
    _steps.append(step)


def leave(*things: Any) -> None:
    """Keep what was the parent's in memory, untouched."""
    _left_behind.extend(things)


def _begin_anew() -> None:
    dead_end = os.open(os.devnull, os.O_RDWR)
    for one in list(_sockets):
        leave(one)
        try:
            number = one.fileno()
        except Exception:  # closed: there is nothing to replace
            continue
        if number >= 0:
            os.dup2(dead_end, number, inheritable=False)
    _sockets.clear()
    os.close(dead_end)
    for step in _steps:
        step()
    for watched in list(_watched):
        watched.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
