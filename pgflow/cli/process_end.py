"""The end of a worker's process: soon after its grace period at the latest, whatever its code is doing.

A stop is a request to the event loop. A loop that is blocked, by a workflow's code for example, does not see it: so a
thread waits beside it, and ends the process when the time is up. That is as harmless as any crash: another worker
goes on from what is recorded.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import NoReturn

AFTERWARDS = 12.0
"""Seconds after the grace period in which a stopping worker may hand workflows back and make its last writes."""

ANSWER = 1.0
"""Seconds after the grace period by which the event loop has to react to the stop."""

BLOCKED = 70
"""The exit code of a process whose event loop did not end."""


class Ending:
    """Sees to it that a process ends once it is asked to stop. Create it on the event loop, in the main thread.

    Args:
        stop: called on the event loop at the first signal, and at each that follows.
        grace: seconds that running activities may go on after it.
    """

    def __init__(self, stop: Callable[[], None], grace: float) -> None:
        self._stop = stop
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._answered = False
        # A signal handler may use it at any point, even in the middle of another call of itself.
        self._asked: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._wait, name="pgflow ending", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        # Python calls this between two bytecodes of whatever the main thread executes. asyncio's own handlers would
        # wait for the loop.
        self._asked.put(None)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._answered = True
        self._stop()

    def _wait(self) -> None:
        self._asked.get()
        time.sleep(self._grace + ANSWER)
        if self._answered:
            time.sleep(AFTERWARDS - ANSWER)
        leave_at_once("the worker was asked to stop, but its event loop did not end")


def leave_at_once(reason: str) -> NoReturn:
    """End this process from any thread, whatever the other threads are doing."""
    os.write(2, f"pgflow: {reason}: the process exits now; other workers go on from what is recorded\n".encode())
    os._exit(BLOCKED)
