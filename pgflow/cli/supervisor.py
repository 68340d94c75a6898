"""Several worker processes under one: started, restarted when one dies, stopped together."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from pgflow.observe.http_port import HttpPort
from pgflow.observe.process_reports import Household
from pgflow.store.database.backoff import Backoff

log = logging.getLogger("pgflow.worker")

QUICK = 5.0
"""A process that ends sooner than this many seconds after its start is started again after a pause."""

LONGEST_PAUSE = 10.0
"""Seconds between two starts of a process that fails again and again, at most."""

OWNER = "PGFLOW_SUPERVISOR_PIPE"
"""The environment variable with the descriptor that reaches end of file when the supervisor is gone."""


READY = "PGFLOW_READY_PIPE"
"""The environment variable with the descriptor on which a worker process reports that it is ready."""


REPORTS = "PGFLOW_REPORTS_SOCKET"
"""The environment variable with the descriptor on which a worker process answers what it has to tell of itself."""


class _Child:
    def __init__(self, number: int) -> None:
        self.name = str(number)
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.backoff = Backoff(0.5, LONGEST_PAUSE)
        self.start_at = 0.0
        self.ready: int | None = None
        """The pipe on which it reports that it is ready; None: it has reported, or its process has ended."""
        self.failed = False
        """Whether its last start ended with an error before it was ready."""


def supervise(processes: int, grace: float, metrics: tuple[str, int] | None = None) -> int:
    """Run this command line in several processes until SIGTERM or SIGINT; returns the exit code.

    A process that dies is started again, after a growing pause if it did not last. If all of them fail at their first
    start (a wrong DSN, an old schema), the supervisor ends; until one of them is ready, those that have failed are not
    started again.

    Args:
        processes: how many.
        grace: seconds that running activities may go on after a stop.
        metrics: the address and the port at which metrics and health are served; None: they are not.

    Raises:
        PgflowError: that port is in use, or prometheus-client is not installed.
    """
    stopping = False
    household = None if metrics is None else Household([str(number) for number in range(processes)])
    port = None if metrics is None or household is None else HttpPort(*metrics, household.report)

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if household is not None:
            household.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    alarm = _Alarm()
    # The children hold the reading end, which reaches end of file when this process ends, however that is.
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    children = [_Child(number) for number in range(processes)]
    proven = False
    while not stopping:
        now = time.monotonic()
        for child in children:
            if child.process is None and now >= child.start_at and (proven or not child.failed):
                _start(child, reader, now, household)
        for child in children:
            ended = child.process is not None and child.process.poll() is not None
            proven = _is_ready(child) or proven
            if ended:
                code = _note_end(child, now, proven)
                if household is not None:
                    household.remove(child.name)
                if not proven and all(other.failed and other.process is None for other in children):
                    os.close(writer)
                    return code
        starts = [child.start_at - now for child in children if child.process is None and (proven or not child.failed)]
        reporting = [child.ready for child in children if child.ready is not None]
        alarm.wait(max(0.0, min(starts, default=60.0)), reporting)
    _stop_all(children, grace)
    os.close(writer)
    if port is not None:
        port.close()
    return 0


def _start(child: _Child, owner: int, now: float, household: Household | None) -> None:
    arguments = list(sys.orig_argv)
    arguments[0] = sys.executable
    child.ready, reporting = os.pipe()
    os.set_blocking(child.ready, False)
    passed = {OWNER: owner, READY: reporting}
    theirs = None
    if household is not None:
        ours, theirs = socket.socketpair()
        passed[REPORTS] = theirs.fileno()
        household.add(child.name, ours)
    child.process = subprocess.Popen(
        [*arguments, "--processes", "1"],
        pass_fds=list(passed.values()),
        env={**os.environ, **{name: str(descriptor) for name, descriptor in passed.items()}},
    )
    os.close(reporting)
    if theirs is not None:
        theirs.close()
    child.started, child.failed = now, False


def _is_ready(child: _Child) -> bool:
    """Whether the child has just reported that it is ready."""
    if child.ready is None:
        return False
    try:
        said = os.read(child.ready, 1)
    except BlockingIOError:
        return False
    os.close(child.ready)
    child.ready = None
    child.failed = not said
    return bool(said)


def _note_end(child: _Child, now: float, proven: bool) -> int:
    """Note that a child has ended, and when it is started again; returns its exit code."""
    process = child.process
    assert process is not None
    lasted = now - child.started
    child.process = None
    if child.ready is not None:
        os.close(child.ready)
        child.ready, child.failed = None, True
    # A process that was killed has not failed by itself: it is started again.
    child.failed = child.failed and process.returncode > 0
    pause = 0.0
    if lasted > QUICK and not child.failed:
        child.backoff.reset()
    else:
        pause = child.backoff.pause()
    child.start_at = now + pause
    then = f"another is started in {pause:.1f} s" if proven or not child.failed else "it was not ready yet"
    log.error("worker process %d ended with %d after %.1f s; %s", process.pid, process.returncode, lasted, then)
    return process.returncode


def _stop_all(children: list[_Child], grace: float) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + grace + 15.0
    for process in running:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("worker process %d did not end in time and is killed", process.pid)
            process.kill()
            process.wait()


class _Alarm:
    """Wakes the supervisor when a signal arrives: a stop, or the end of a child."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def wait(self, seconds: float, others: Sequence[int]) -> None:
        """Return at the next signal, when one of `others` can be read, or after `seconds`."""
        ready, _, _ = select.select([self._reader, *others], [], [], seconds)
        if self._reader in ready:
            os.read(self._reader, 4096)
