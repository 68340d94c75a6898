"""What a process tells of itself: whether it lives, whether it is ready, and its metrics. And several of them as one.

A supervisor serves one port for all its workers. It asks each of them over a socket pair; at its other end a thread of
the worker's process answers, so that an answer comes also while the event loop is blocked (it says so then).

    supervisor --number of the question--> worker's thread --number, length, JSON--> supervisor

A process that has ended has no series any more; the one that is started in its place begins at zero, as Prometheus
expects of counters. The label `process` says which of the supervisor's processes it is.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from pgflow.observe.meters import Family, Labels, Sample, gauge, merged, with_label

ANSWER = 1.0
"""Seconds that all processes together have to answer, before one that has not counts as dead."""

_QUESTION = struct.Struct("!I")
_HEAD = struct.Struct("!II")


class ProcessReport(NamedTuple):
    """What a process tells of itself.

    Attributes:
        dead: why it does not count as alive; None: its event loop answers.
        unready: why it is not ready for work; None: it is.
        families: its metrics.
    """

    dead: str | None
    unready: str | None
    families: list[Family]

    def encode(self) -> bytes:
        """As it travels."""
        return json.dumps(self).encode()

    @classmethod
    def decode(cls, text: bytes) -> ProcessReport:
        """As it was before it travelled."""
        dead, unready, families = json.loads(text)
        return cls(dead, unready, [_family(*family) for family in families])


def _family(
    kind: str,
    name: str,
    text: str,
    labels: list[str],
    samples: list[tuple[list[str], list[float]]],
    bounds: list[float],
) -> Family:
    return Family(kind, name, text, labels, [Sample(tuple(key), values) for key, values in samples], bounds)


def answer_in_thread(connection: socket.socket, report: Callable[[], ProcessReport]) -> None:
    """Answer the questions of a supervisor until it is gone, in a thread that does not keep the process alive.

    Args:
        connection: this process's end of the pair.
        report: what to tell, called in that thread.
    """

    def answer() -> None:
        with connection, suppress(ConnectionError):  # the supervisor is gone
            while len(question := connection.recv(_QUESTION.size, socket.MSG_WAITALL)) == _QUESTION.size:
                told = report().encode()
                connection.sendall(_HEAD.pack(*_QUESTION.unpack(question), len(told)) + told)

    threading.Thread(target=answer, name="pgflow reports", daemon=True).start()


class Questioned:
    """One process, as whoever asks it sees it. Used by one thread at a time.

    Args:
        connection: the asker's end of the pair.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._number = 0
        self._received = bytearray()
        self.ended = False
        """Whether the process is known to have ended."""
        self.answered = False
        """Whether it has ever answered: before that it is starting."""

    def ask(self) -> None:
        """Put the question; the answer is read by `answer`."""
        self._number = (self._number + 1) % 2**32
        self._connection.settimeout(0.0)
        try:
            self._connection.send(_QUESTION.pack(self._number))
        except BlockingIOError:  # it has left many questions unanswered: then it answers none of them in time
            pass
        except OSError:
            self.ended = True

    def answer(self, until: float) -> ProcessReport | None:
        """The answer to the last question; None: there is none by that time of the monotonic clock, or the process has
        ended. Late answers to earlier questions are passed over.
        """
        while not self.ended:
            while len(self._received) >= _HEAD.size:
                number, length = _HEAD.unpack_from(self._received)
                if len(self._received) < _HEAD.size + length:
                    break
                told = bytes(self._received[_HEAD.size : _HEAD.size + length])
                del self._received[: _HEAD.size + length]
                self.answered = True
                if number == self._number:
                    return ProcessReport.decode(told)
            self._connection.settimeout(max(0.001, until - time.monotonic()))
            try:
                more = self._connection.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError:
                more = b""
            self.ended = not more
            self._received += more
        return None

    def close(self) -> None:
        """Ask no more."""
        self._connection.close()


class Household:
    """Several processes that tell of themselves as one.

    Args:
        names: those that there should be, as the label `process` has them.

    Example:
        household = Household(["0", "1"])
        household.add("0", connection)
        report = household.report()
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._processes: dict[str, Questioned] = {}
        self._starts: dict[str, int] = dict.fromkeys(names, 0)
        self.stopping = False
        """Whether all of them are being stopped."""

    def add(self, name: str, connection: socket.socket) -> None:
        """A process was started."""
        with self._lock:
            self._processes[name] = Questioned(connection)
            self._starts[name] += 1

    def remove(self, name: str) -> None:
        """A process has ended: nothing of it is shown any more."""
        with self._lock:
            process = self._processes.pop(name, None)
            if process is not None:
                process.close()

    def report(self) -> ProcessReport:
        """Ask all of them. Each has to live for the whole to live, and to be ready for it to be ready; one that has
        ended and is about to be started again, or is starting, makes it unready only.
        """
        with self._lock:
            for process in self._processes.values():
                process.ask()
            until = time.monotonic() + ANSWER
            told = {name: process.answer(until) for name, process in self._processes.items()}
            told = {name: report for name, report in told.items() if not self._processes[name].ended}
            starting = {name for name, process in self._processes.items() if not process.answered}
            starts = dict(self._starts)
        dead, unready, families = [], [], []
        for name in self._names:
            report = told.get(name)
            if name not in told:
                unready.append(f"process {name} does not run")
            elif name in starting:
                unready.append(f"process {name} is starting")
            elif report is None:
                dead.append(f"process {name} does not answer")
                unready.append(f"process {name} does not answer")
            else:
                dead += [] if report.dead is None else [f"process {name}: {report.dead}"]
                unready += [] if report.unready is None else [f"process {name}: {report.unready}"]
                families += with_label("process", name, report.families)
        if self.stopping:
            unready.insert(0, "it is being stopped")
        families += _about(self._names, told, starts)
        return ProcessReport("; ".join(dead) or None, "; ".join(unready) or None, merged(families))


def _about(names: list[str], told: Mapping[str, ProcessReport | None], starts: Mapping[str, int]) -> list[Family]:
    up: dict[Labels, float] = {(name,): float(told.get(name) is not None) for name in names}
    restarts = [Sample((name,), (float(max(0, starts[name] - 1)),)) for name in names]
    return [
        gauge("pgflow_process_up", "Whether the process runs and answers.", up, "process"),
        Family("counter", "pgflow_process_restarts_total", "How often it was started again.", ("process",), restarts),
    ]
