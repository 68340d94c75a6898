"""Forked processes: what the parent had open stays the parent's, and the child begins anew.

A forked child has copies of everything: of sockets on which the parent talks to the database, of locks that threads
hold which do not exist there. So at its very start the child puts a dead end in the place of each such socket (nothing
that it may still do, not even closing a connection, reaches the parent's), and has whoever keeps connections, threads
and locks begin without any.

The parent's objects stay in memory: to collect them would run code of theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakSet


class Forked(Protocol):
    """Somebody who has to begin anew."""

    def after_fork(self) -> None:
        """Begin anew: called in the child, before anything else happens there."""
        ...


class _Socket(Protocol):
    def fileno(self) -> int: ...


_watched: WeakSet[Any] = WeakSet()
_sockets: WeakSet[Any] = WeakSet()
_steps: list[Callable[[], None]] = []
_left_behind: list[Any] = []
"""The parent's, in a child."""


def watch(one: Forked) -> None:
    """Have somebody told when this is the child of a fork, for as long as he is there."""
    _watched.add(one)


def watch_socket(one: _Socket) -> None:
    """Keep a child of a fork from a socket, by whatever has it as `fileno()`; closed ones may fail there with any
    `Exception`.
    """
    _sockets.add(one)


def at_fork(step: Callable[[], None]) -> None:
    """Have a function called in the child of a fork, for good."""
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
        except Exception:  # closed: there is nothing to keep it from
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
