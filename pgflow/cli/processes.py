"""Several worker processes under one: started, restarted when one dies, stopped together."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

log = logging.getLogger("pgflow.worker")

QUICK = 5.0
"""A process that ends sooner than this many seconds after its start has failed to start."""

LONGEST_PAUSE = 10.0
"""Seconds between two starts of a process that fails again and again, at most."""

OWNER = "PGFLOW_SUPERVISOR_PIPE"
"""Names the descriptor whose end of file tells a worker process that its supervisor is gone."""


class _Child:
    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.pause = 0.0
        self.start_at = 0.0


def supervise(processes: int, grace: float) -> int:
    """Run this command line in so many processes until SIGTERM or SIGINT; returns the exit code.

    A process that dies is started again, after a growing pause when it did not last. When the first start of all of them
    fails (a wrong DSN, an old schema), that is the end.
    """
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    alarm = _Alarm()
    reader, writer = os.pipe()  # the children hold the reading end: it ends with this process, however that ends
    os.set_inheritable(reader, True)
    children = [_Child(number) for number in range(processes)]
    code = 0
    while not stopping:
        now = time.monotonic()
        for child in children:
            if child.process is None and now >= child.start_at:
                child.process, child.started = _start(reader), now
        for child in children:
            if child.process is not None and child.process.poll() is not None:
                code = _note_end(child, now)
                if code and all(other.process is None and other.pause for other in children):
                    os.close(writer)
                    return code
        starts = [child.start_at - now for child in children if child.process is None]
        alarm.wait(max(0.0, min(starts, default=60.0)))
    _stop_all(children, grace)
    os.close(writer)
    return 0


def _start(reader: int) -> subprocess.Popen[bytes]:
    arguments = list(sys.orig_argv)
    arguments[0] = sys.executable
    return subprocess.Popen(
        [*arguments, "--processes", "1"],
        pass_fds=[reader],
        env={**os.environ, OWNER: str(reader)},
    )


def _note_end(child: _Child, now: float) -> int:
    process = child.process
    assert process is not None
    lasted = now - child.started
    child.process = None
    child.pause = 0.0 if lasted > QUICK else min(max(0.5, child.pause * 2), LONGEST_PAUSE)
    child.start_at = now + child.pause
    log.error(
        "worker process %d ended with %d after %.1f s; another is started in %.1f s",
        process.pid,
        process.returncode,
        lasted,
        child.pause,
    )
    return process.returncode if process.returncode > 0 else 0


def _stop_all(children: list[_Child], grace: float) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + grace + 15.0
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("worker process %d does not end and is killed", process.pid)
            process.kill()
            process.wait()


class _Alarm:
    """Wakes whoever waits when a signal arrives: a stop, or the end of a child."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait(self, seconds: float) -> None:
        """Return at the next signal, `seconds` from now at the latest."""
        ready, _, _ = select.select([self._reader], [], [], seconds)
        if ready:
            os.read(self._reader, 4096)
