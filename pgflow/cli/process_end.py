"""The end of a worker's process: within its grace period in any case, whatever executes in it then.

A stop is asked of the event loop. A loop that is blocked, by a workflow's code for example, does not hear of it: so a
thread waits beside it, and ends the process when the time is over. That is as harmless as any crash: another worker
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
"""Seconds after the grace period in which a worker that is stopping may hand back and write its last."""

ANSWER = 1.0
"""Seconds after the grace period in which the event loop has to have answered."""

BLOCKED = 70
"""The exit code of a process whose event loop would not end."""


class Ending:
    """What becomes of a process that is asked to stop. To be made on the event loop, in the main thread.

    Args:
        stop: called on the event loop at the first signal, and at each that follows.
        grace: seconds that running activities may go on after it.
    """

    def __init__(self, stop: Callable[[], None], grace: float) -> None:
        self._stop = stop
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self._answered = False
        # What a signal's handler may call in the middle of anything, of itself too.
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
        leave_at_once("the worker was asked to stop, and its event loop does not end")


def leave_at_once(reason: str) -> NoReturn:
    """End this process, from any thread, whatever the others hold."""
    os.write(2, f"pgflow: {reason}: the process is ended; other workers go on from what is recorded\n".encode())
    os._exit(BLOCKED)
