"""What a worker shows of itself: alive or not, ready or not, and its metrics. At a port of its own, or through the port
of the supervisor that has started its process.

It is asked in other threads than the worker's, and only looks.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence

from pgflow import forking
from pgflow.errors import PgflowError
from pgflow.observe.http_port import HttpPort
from pgflow.observe.meters import Family
from pgflow.observe.process_reports import ProcessReport, answer_in_thread
from pgflow.observe.worker_metrics import WorkerMetrics
from pgflow.store.database.connections import Line
from pgflow.store.schema.compatibility import check_async
from pgflow.worker.loop_watchdog import Watchdog
from pgflow.worker.session import WorkerSession

_log = logging.getLogger("pgflow.worker")

DEAD = 10.0
"""Seconds without a tick of the event loop after which the worker does not count as alive."""

BETWEEN_LOOKS = 10.0
"""Seconds between two looks whether the schema still fits."""

Serve = Callable[[Callable[[], ProcessReport]], Callable[[], None]]
"""Begins to answer with what it is given, and returns how to stop that."""


def at_port(host: str, port: int) -> Serve:
    """At a port of this process's own.

    Example:
        Observation(at_port("0.0.0.0", 9100), ["checkout"])
    """

    def serve(report: Callable[[], ProcessReport]) -> Callable[[], None]:
        opened = HttpPort(host, port, report)
        _log.info("metrics and health are served at port %d of %s", opened.port, host)
        return opened.close

    return serve


def to_supervisor(descriptor: int) -> Serve:
    """To the process that has started this one.

    Args:
        descriptor: this process's end of a socket pair.
    """

    def serve(report: Callable[[], ProcessReport]) -> Callable[[], None]:
        connection = socket.socket(fileno=descriptor)
        connection.settimeout(None)
        forking.watch_socket(connection)
        answer_in_thread(connection, report)
        return lambda: None  # until the end of the process: so that the supervisor hears that it is being stopped

    return serve


class Observation:
    """What one worker shows, from its start to its end. The worker keeps the attributes up to date.

    Args:
        serve: where it is shown; None: nowhere, and nothing is counted.
        names: the workflows that the worker knows.
    """

    def __init__(self, serve: Serve | None, names: Sequence[str]) -> None:
        self._serve = serve
        self._names = names
        self._close: Callable[[], None] | None = None
        self.metrics = None if serve is None else WorkerMetrics(names, self._gauges)
        """What counts; None: nobody does."""
        self.watchdog: Watchdog | None = None
        self.session: WorkerSession | None = None
        """The registration, while there is one."""
        self._trusted_until: Callable[[], float] = lambda: 0.0
        self._next_look = 0.0
        self.unfit: str | None = None
        """Why the schema does not fit this code any more."""
        self.stopping = False

    def anew(self, serve: Serve | None = None) -> Observation:
        """One that has shown and counted nothing yet.

        Args:
            serve: where it is shown; None: where this one is.
        """
        return Observation(self._serve if serve is None else serve, self._names)

    def open(self) -> None:
        """Begin to show.

        Raises:
            PgflowError: the port is in use, or prometheus-client is not installed.
        """
        if self._serve is not None:
            self._close = self._serve(self.report)

    async def close(self) -> None:
        """Show no more."""
        if self._close is not None:
            await asyncio.to_thread(self._close)

    def begin(self, session: WorkerSession, trusted_until: Callable[[], float]) -> None:
        """The worker is registered.

        Args:
            session: the registration.
            trusted_until: until when, on the monotonic clock, the lease is certain; a time in the past while it is in
                doubt.
        """
        self.session, self._trusted_until = session, trusted_until

    def lease_lost(self) -> None:
        """The lease is lost."""
        if self.metrics is not None:
            self.metrics.lease_lost()

    async def see_schema(self, line: Line, schema: str) -> None:
        """See now and then, if anybody is shown this, whether the schema still fits this code: it may have been
        migrated since.

        Raises:
            psycopg.Error: the database cannot be asked.
        """
        if self._serve is None or time.monotonic() < self._next_look:
            return
        try:
            await check_async(await line.get(), schema)
        except PgflowError as error:
            if self.unfit is None:
                _log.error("%s", error)
            self.unfit = str(error)
        else:
            self.unfit = None
        self._next_look = time.monotonic() + BETWEEN_LOOKS

    def report(self) -> ProcessReport:
        """What there is to tell; from any thread."""
        return ProcessReport(self._dead(), self._unready(), [] if self.metrics is None else self.metrics.read())

    def _dead(self) -> str | None:
        watchdog = self.watchdog
        if watchdog is not None and (silent := watchdog.silent) > DEAD:
            return f"the event loop has not answered for {silent:.0f} s"
        return None

    def _unready(self) -> str | None:
        if self.stopping:
            return "it is being stopped"
        if self.unfit is not None:
            return self.unfit
        if self.session is None:
            return "it is not registered"
        if time.monotonic() >= self._trusted_until():
            return "its lease is in doubt"
        return self._dead()

    def _gauges(self) -> list[Family]:
        watchdog, session = self.watchdog, self.session
        return [] if session is None or watchdog is None else session.gauges(watchdog.blocked)
