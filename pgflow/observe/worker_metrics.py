"""What a worker counts, by the batch wherever something passes often.

The parts of a worker tell it in plain data what has happened; where nobody counts, they do not even ask what could be
told. A step costs one addition to a dictionary, in C, when its row is committed.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter, itemgetter

from pgflow.history.events import KIND_ACTIVITY, KIND_LOOP, KIND_SIGNAL_SEND, STATUS_COMPLETED, STATUS_PENDING
from pgflow.model.claimed import Claimed
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome, Released, Suspended
from pgflow.model.rows import EventRow
from pgflow.model.writes import Advance, Write
from pgflow.observe.meters import Counter, Family, Histogram, Labels, gauge

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets for how long statements and pauses take."""

ROWS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
"""Upper bounds of the buckets for how many rows a commit has."""

_ENDS: dict[type[Outcome], str] = {Completed: "completed", Failed: "failed", Cancelled: "cancelled"}
_PAUSES: dict[type[Outcome] | None, str] = {Suspended: "asleep", Released: "handed_back", None: "lost"}
_rows = attrgetter("rows")
_changes = attrgetter("run_changes")
_what = itemgetter(*map(EventRow._fields.index, ("kind", "name", "status")))


class WorkerMetrics:
    """The meters of one worker, over all its registrations.

    Args:
        names: the workflows that it knows.
        gauges: measures what the worker stands at, when it is read.

    Example:
        metrics = WorkerMetrics(["checkout"])
        metrics.flushed(120, 0.004)
        families = metrics.read()
    """

    def __init__(self, names: Iterable[str] = (), gauges: Callable[[], Iterable[Family]] = lambda: ()) -> None:
        self._gauges = gauges
        self._steps = Counter(
            "pgflow_steps_total", "Steps that have ended and are committed, by kind and status.", "kind", "status"
        )
        self._attempts = Counter(
            "pgflow_attempts_total",
            "Attempts of activities that have ended: completed, retried (failed, another follows), or failed.",
            "activity",
            "outcome",
        )
        self._ended = Counter(
            "pgflow_workflows_ended_total",
            "Workflows that have ended here: completed, failed or cancelled.",
            "workflow",
            "status",
        )
        self._left = Counter(
            "pgflow_runs_left_total",
            "Runs that have left memory without an end: asleep, handed_back, or lost (another worker has it).",
            "workflow",
            "how",
        )
        self._claimed = Counter(
            "pgflow_claimed_workflows_total",
            "Workflows that were claimed: new (from the beginning), replayed (from history), or resumed (they were "
            "asleep in memory).",
            "workflow",
            "how",
        )
        self._replayed = Counter("pgflow_replayed_rows_total", "Rows of history that were read for replays.")
        self._claims = Histogram("pgflow_claim_seconds", "How long a claim took, reads included.", SECONDS)
        self._flush_seconds = Histogram(
            "pgflow_flush_seconds", "How long the commit of a batch took, repeats included.", SECONDS
        )
        self._flush_rows = Histogram("pgflow_flush_rows", "Rows of history in a batch.", ROWS)
        self._signals = Counter(
            "pgflow_signals_total",
            "Signals that workflows here have sent, consumed, or set_aside (the body does not fit: a dead letter).",
            "event",
        )
        self._advanced = Counter("pgflow_loop_advancements_total", "Advancements of loops: turns left active history.")
        self._forgotten = Counter("pgflow_loop_forgotten_rows_total", "Rows that left active history with them.")
        self._conflicts = Counter(
            "pgflow_loop_retries_total", "Advancing transactions that met a serialization failure and were repeated."
        )
        self._advances = Histogram(
            "pgflow_loop_advancement_seconds",
            "How long a transaction that advances loops took, repeats included.",
            SECONDS,
        )
        self._lost = Counter("pgflow_leases_lost_total", "Leases that were lost: everything in memory was dropped.")
        self._lag = Histogram(
            "pgflow_event_loop_lag_seconds", "How late a timer of the event loop was, four times a second.", SECONDS
        )
        # From zero on, since Prometheus sees no growth in a series that begins at one.
        for event in ("sent", "consumed", "set_aside"):
            self._signals.add((event,), 0)
        for name in names:
            self._ended.add_all({(name, status): 0 for status in _ENDS.values()})

    def read(self) -> list[Family]:
        """What all of them stand at now; from any thread."""
        meters: list[Counter | Histogram] = [
            self._steps,
            self._attempts,
            self._ended,
            self._left,
            self._claimed,
            self._replayed,
            self._claims,
            self._flush_seconds,
            self._flush_rows,
            self._signals,
            self._advanced,
            self._forgotten,
            self._conflicts,
            self._advances,
            self._lost,
            self._lag,
        ]
        cpu = Counter("pgflow_cpu_seconds_total", "CPU time of the process.")
        cpu.add((), time.process_time())
        return [*(meter.read() for meter in meters), cpu.read(), *self._gauges()]

    def committed(self, writes: Sequence[Write]) -> None:
        """These writes are durable."""
        tally = Tally(map(_what, chain.from_iterable(map(_rows, writes))))  # all of a batch in C
        for (kind, name, status), count in tally.items():
            if status != STATUS_PENDING:
                self._steps.add((kind, status), count)
                if status == STATUS_COMPLETED:
                    if kind == KIND_ACTIVITY:
                        self._attempts.add((name, "completed"), count)
                    elif kind == KIND_SIGNAL_SEND:
                        self._signals.add(("sent",), count)
        for changes in filter(None, map(_changes, writes)):
            if changes.consumed:
                self._signals.add(("consumed",), len(changes.consumed))
            if changes.aside:
                self._signals.add(("set_aside",), len(changes.aside))

    def flushed(self, rows: int, seconds: float) -> None:
        """A batch was sent and its commit answered."""
        self._flush_rows.observe(rows)
        self._flush_seconds.observe(seconds)

    def attempt_failed(self, activity: str, again: bool) -> None:
        """An attempt has failed; whether another follows."""
        self._attempts.add((activity, "retried" if again else "failed"))

    def claim_took(self, seconds: float) -> None:
        """A claim was answered."""
        self._claims.observe(seconds)

    def began(self, claimed: Claimed, resumed: bool = False) -> None:
        """A claimed workflow is executed, or goes on where it fell asleep in memory."""
        if resumed:
            how = "resumed"
        elif claimed.events:
            how = "replayed"
            self._replayed.add((), len(claimed.events))
        else:
            how = "new" if claimed.epoch == 1 else "replayed"
        self._claimed.add((claimed.name, how))

    def left(self, workflow: str, outcome: Outcome | None) -> None:
        """A run has ended, fallen asleep or left memory; None: its lease was lost."""
        kind = None if outcome is None else type(outcome)
        if kind in _PAUSES:
            self._left.add((workflow, _PAUSES[kind]))
        elif kind is not None:
            self._ended.add((workflow, _ENDS[kind]))

    def advanced(self, group: Sequence[Advance], seconds: float) -> None:
        """Loops were advanced together; none of them, if all were put off."""
        if not group:
            return
        self._advanced.add((), len(group))
        self._forgotten.add((), sum([advance.moved for advance in group]))
        self._advances.observe(seconds)
        for advance in group:
            if advance.breaks:
                self._steps.add((KIND_LOOP, STATUS_COMPLETED))

    def loops_conflicted(self) -> None:
        """A transaction that advances loops is repeated."""
        self._conflicts.add()

    def lease_lost(self) -> None:
        """The lease is lost."""
        self._lost.add()

    def late(self, seconds: float) -> None:
        """A timer of the event loop was so late."""
        self._lag.observe(max(0.0, seconds))


def state(running: int, cached: int, attempts: int, waiting: int, backlog: int, blocked: int) -> list[Family]:
    """The gauges of a worker, as families.

    Args:
        running: workflows that it executes.
        cached: sleeping ones in its memory.
        attempts: activities that are being executed.
        waiting: activities that wait for a place.
        backlog: rows that wait for their commit.
        blocked: how often its event loop was blocked for a second.
    """
    memory: dict[Labels, float] = {("running",): float(running), ("asleep",): float(cached)}
    going_on: dict[Labels, float] = {("running",): float(attempts), ("waiting",): float(waiting)}
    times = Counter("pgflow_event_loop_blocked_total", "How often the event loop was blocked for a second.")
    times.add((), blocked)
    return [
        gauge("pgflow_runs", "Workflows in memory: running, or asleep.", memory, "state"),
        gauge("pgflow_attempts", "Attempts of activities: running, or waiting for a place.", going_on, "state"),
        gauge("pgflow_backlog_rows", "Rows that wait for their commit.", float(backlog)),
        times.read(),
    ]
