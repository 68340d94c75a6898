"""The settings of a worker, checked when it is created."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pgflow.definitions.options import check_queue
from pgflow.definitions.retry import LONGEST, seconds
from pgflow.execution.engine.host import Limits
from pgflow.model.builds import build_order
from pgflow.store.exchange.sweeping import AUDIT_KEEP

LONGEST_LEASE = 30 * 86_400.0
"""The longest lease, in seconds: a statement may take a part of it, which the server counts in 31 bits of milliseconds.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one worker. Durations are seconds.

    Args:
        queues: the queues that it serves.
        concurrency: workflows in memory at once.
        activities: async activity attempts at once.
        threads: plain activity functions at once, each in a thread.
        transactions: transactional activities at once, each on a connection of its own.
        cached: sleeping workflows kept in memory, at most, to go on without a replay.
        lease: how long after its last heartbeat no other worker may take its workflows.
        grace: how long running activities may go on after a stop.
        poll: the longest pause between two looks for work without a hint.
        recovery: the pause between two checks for dead workers.
        signal_keep: how long a signal is kept after it was taken, or dropped.
        audit_keep: how long a row of the audit log is kept.
        metrics_port: the port at which it shows itself; None: none.
        limits: bounds of one workflow.
        build: the version of the application; None: older than any.
        max_backlog: how many rows may wait for their commit before no more activities begin.

    Raises:
        ValueError: a number is out of its range.
    """

    queues: Sequence[str] = ("default",)
    concurrency: int = 1000
    activities: int = 1000
    threads: int = 32
    transactions: int = 10
    cached: int = 1000
    lease: float = 15.0
    grace: float = 10.0
    poll: float = 1.0
    recovery: float = 0.5
    signal_keep: float = 86_400.0
    audit_keep: float = AUDIT_KEEP
    metrics_port: int | None = None
    limits: Limits = field(default_factory=Limits)
    build: str | None = None
    max_backlog: int = 20_000

    def __post_init__(self) -> None:
        if not self.queues or not all(isinstance(queue, str) and queue for queue in self.queues):
            raise ValueError(f"queues={self.queues!r}: expected at least one name")
        for queue in self.queues:
            check_queue(queue)
        for name in ("concurrency", "activities", "threads", "transactions", "max_backlog"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r}: expected a whole number, at least 1")
        if self.build is not None:
            build_order(self.build)
        if not isinstance(self.cached, int) or isinstance(self.cached, bool) or self.cached < 0:
            raise ValueError(f"cached={self.cached!r}: expected a whole number, at least 0")
        port = self.metrics_port
        if port is not None and (not isinstance(port, int) or isinstance(port, bool) or not 0 <= port < 65_536):
            raise ValueError(f"metrics_port={port!r}: expected a port, from 1 to 65535, or 0 for any that is free")
        bounds = (
            ("lease", 1.0, LONGEST_LEASE),
            ("poll", 0.01, LONGEST),
            ("recovery", 0.05, LONGEST),
            ("grace", 0.0, LONGEST),
            ("signal_keep", 0.0, LONGEST),
            ("audit_keep", 0.0, LONGEST),
        )
        for name, least, most in bounds:
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value >= least:
                raise ValueError(f"{name}={value!r}: expected at least {least:g} seconds")
            seconds(value, name, most)
        numbers = {
            "payload_limit": self.limits.payload,
            "max_active_rows": self.limits.max_rows,
            "max_crashes": self.limits.crashes,
        }
        for name, number in numbers.items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ValueError(f"{name}={number!r}: expected a whole number, at least 1")
