"""Which event loop counts as the running one of a thread while runs are drained in it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _StageLocal(threading.local):
    """What each thread keeps while it is on a stage."""

    staged = False
    outer: asyncio.AbstractEventLoop | None = None
    """The thread's own event loop."""


_here = _StageLocal()


@contextmanager
def stage() -> Iterator[None]:
    """Where runs are drained, one after the other.

    Making a loop the running one costs a system call. So on a stage the loop of the run that was drained last stays the
    running one, and code that may ask asyncio for the thread's own loop (logging, encoders, the making of tasks) is put
    into `offstage`. The thread's own loop does not adopt the asynchronous generators of runs either.
    """
    outer, hooks, staged = asyncio._get_running_loop(), sys.get_asyncgen_hooks(), _here.staged
    sys.set_asyncgen_hooks(None, None)
    if not staged:
        _here.staged, _here.outer = True, outer
    try:
        yield
    finally:
        if not staged:
            _here.staged, _here.outer = False, None
        asyncio._set_running_loop(outer)
        sys.set_asyncgen_hooks(*hooks)


@contextmanager
def offstage() -> Iterator[None]:
    """Within a stage, or nowhere: the thread's own event loop is the running one."""
    inner = asyncio._get_running_loop()
    if not _here.staged or inner is _here.outer:
        yield
        return
    asyncio._set_running_loop(_here.outer)
    try:
        yield
    finally:
        asyncio._set_running_loop(inner)
