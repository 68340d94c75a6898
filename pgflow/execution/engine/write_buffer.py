"""What a run hands to the journal: rows gathered into writes, and what happens once those are committed.

    gathered -> flushed as one write -> committed: results may be delivered, calls are made
                                     '-> refused: the run is lost, or its own rows are to blame

All writes of a run go to the journal in order, so a step never becomes durable before one that it depends on. What
is committed by a transaction other than the journal's (a transactional activity) takes its place in that order: it
begins when everything before it is durable, and nothing of the run is written until it has ended.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import count
from typing import Any, Protocol
from uuid import UUID

from pgflow.errors import EngineError, LeaseLost
from pgflow.execution.activities.state import ActivityState
from pgflow.execution.engine.host import Limits, Services
from pgflow.execution.engine.result_order import Delivery
from pgflow.execution.event_loop.stage import offstage
from pgflow.history.events import STATUS_PENDING
from pgflow.model.claimed import Claimed
from pgflow.model.outcomes import Failed, Outcome
from pgflow.model.rows import EventRow, Message
from pgflow.model.writes import Advance, RunChanges, Write
from pgflow.observe.log_records import fields_of

log = logging.getLogger("pgflow.execution")

_LOCATION_AND_STATUS = slice(0, EventRow._fields.index("status") + 1, EventRow._fields.index("status"))
"""Gets both from a row in one step: every write passes here."""

_numbers = count(1)
"""Numbers the messages of this process in the order in which they are published."""


class WritingRun(Protocol):
    """What a write buffer asks of its run. `Run` says what each of these is."""

    advancing: int

    @property
    def claimed(self) -> Claimed: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def host(self) -> Services: ...
    @property
    def label(self) -> str: ...
    @property
    def fatal(self) -> EngineError | None: ...
    @property
    def closed(self) -> bool: ...
    def schedule(self) -> None: ...
    def note_fatal(self, error: EngineError) -> None: ...
    def left(self, outcome: Outcome) -> None: ...
    def lost(self, error: BaseException) -> None: ...
    def leave(self) -> None: ...


class WriteBuffer:
    """What one run has gathered, and how much of that is in flight.

    Args:
        run: gets commits, refusals, and warnings about too many rows.
    """

    __slots__ = (
        "_active_rows",
        "_advances",
        "_in_flight",
        "_next",
        "_outcome",
        "_queue",
        "_run",
        "_unremarkable_rows",
        "_writing_alone",
        "activity_state",
        "calls",
        "deliveries",
        "rows",
        "run_changes",
        "suspected",
        "witness",
    )

    def __init__(self, run: WritingRun) -> None:
        self._run = run
        self._active_rows = len(run.claimed.events)
        limits = run.limits
        self._unremarkable_rows = min(limits.warn_rows - 1, limits.max_rows)
        """The number of active rows up to which there is nothing to report."""
        self.rows: list[EventRow] = []
        """The next write's."""
        self.deliveries: list[Delivery] = []
        """What is committed with the next write: its rows are gathered."""
        self.calls: list[Callable[[], None]] = []
        """Calls made once it is committed."""
        self._advances = 0
        """How many of the calls hand over the advancement of a loop."""
        self.run_changes: RunChanges | None = None
        """What it changes besides history."""
        claimed = run.claimed
        self.activity_state = ActivityState(
            claimed.state, claimed.tags if claimed.tags_now is None else claimed.tags_now
        )
        """The state that activities keep with the workflow."""
        self.suspected = claimed.suspicions > 0
        """Whether the run is suspected of deaths of processes, and has made no progress since."""
        self._in_flight: deque[tuple[list[Delivery], list[Callable[[], None]]]] = deque()
        self._queue: list[Callable[[], None]] = []  # a deque takes memory even while it is empty
        self._next: Callable[[], None] | None = None
        self._writing_alone = False
        self._outcome: Outcome | None = None
        self.witness: tuple[Any, ...] | None = None
        """Of the row that was committed last: where it stands, and its status. A database that lacks it is behind."""

    @property
    def awaited(self) -> bool:
        """Whether a result or a call waits for what is gathered and not yet flushed."""
        return bool(self.deliveries or self.calls)

    @property
    def call_waits(self) -> bool:
        """Whether a call waits for what is gathered, or for a write that is in flight."""
        return bool(self.calls) or self.calls_in_flight

    @property
    def calls_in_flight(self) -> bool:
        """Whether a call waits for a write that is in flight."""
        return any(calls for _, calls in self._in_flight)

    @property
    def alone(self) -> bool:
        """Whether another transaction than the journal's is writing for this run, or waits for its turn."""
        return self._writing_alone or self._next is not None or bool(self._queue)

    def gather(self, row: EventRow, new: bool) -> None:
        """Take a row for the next write, a new one or one that history has already."""
        self.rows.append(row)
        if new:  # `count_row`, inlined: every step passes here
            self._active_rows += 1
            if self._active_rows > self._unremarkable_rows:
                self._tell_of_many_rows()

    def consume(self, ids: Iterable[UUID], location: str) -> None:
        """Record with the next write that signals were taken by the listen at a location."""
        self._to_change().consumed.extend((id, location) for id in ids)

    def set_aside(self, id: UUID, problem: str) -> None:
        """Record with the next write that a signal does not fit the type that is listened for."""
        self._to_change().aside.append((id, problem))

    def cancel(self, seq: int) -> None:
        """Record with the next write that the request to cancel is delivered, at this place in the
        order of completion.
        """
        self._to_change().cancels = seq

    def send(self, message: Message) -> None:
        """Send a message once the next write, which holds its row, is committed.

        A later owner of the workflow has a higher epoch, so a message that is sent late is recognised by its place.
        """
        place = self._run.claimed.epoch << 32 | next(_numbers) & 0xFFFFFFFF
        self._to_change().messages.append(message._replace(place=place))

    def _to_change(self) -> RunChanges:
        """What the next write changes besides history."""
        if self.run_changes is None:
            self.run_changes = RunChanges()
        return self.run_changes

    def call_after(self, call: Callable[[], None]) -> None:
        """Call `call` once all rows gathered so far are committed."""
        self.calls.append(call)

    def advance_after(self, advance: Advance) -> None:
        """Hand over the advancement of a loop once all rows gathered so far are committed."""
        run = self._run

        def hand_over() -> None:
            if run.fatal is None:
                run.host.loops.advance(advance)
            else:  # nothing is written after a divergence
                run.advancing -= 1

        run.advancing += 1
        self._advances += 1
        self.calls.append(hand_over)

    def drop(self) -> None:
        """Drop what is gathered and not yet flushed."""
        self._run.advancing -= self._advances
        self._advances = 0
        self.rows, self.deliveries, self.calls, self.run_changes = [], [], [], None
        self.activity_state.drop()

    def flush(self, outcome: Outcome | None = None) -> None:
        """Hand what is gathered to the journal, now or when a transaction of its own has ended."""
        if self._run.fatal is not None:
            self.drop()  # the code cannot be trusted: nothing that ends from now on is written
        rows = self.rows
        if not rows and outcome is None and not self.calls and self.run_changes is None:
            return
        if self._writing_alone or self._next is not None:
            self._outcome = outcome or self._outcome
            return
        if not rows and outcome is None and self.run_changes is None:
            calls, self.calls, self._advances = self.calls, [], 0
            if self._in_flight:
                # Everything gathered is in flight already: wait for the last write.
                self._in_flight[-1][1].extend(calls)
            else:
                for call in calls:
                    call()
            return
        run = self._run
        if self.activity_state.gathered:
            run_changes = self._to_change()
            run_changes.state, run_changes.tags = self.activity_state.texts()
            self.activity_state.hand_over()
        if self.suspected:
            self._note_progress(rows)
        write = Write(run.claimed.run, rows, outcome, self._committed, self._refused, self.run_changes)
        self.run_changes = None
        self._in_flight.append((self.deliveries, self.calls))
        self.rows, self.deliveries, self.calls, self._advances = [], [], [], 0
        run.host.journal.write(write)

    def count_crashes(self) -> None:
        """Record with the next write that the deaths of processes that this run has caused have been counted as
        attempts.
        """
        self._to_change().suspicion = "counted"

    def lift(self) -> None:
        """Record with the next write that the run is no longer suspected, whatever else it holds."""
        self._to_change().suspicion = "lifted"

    def _note_progress(self, rows: list[EventRow]) -> None:
        """Note progress if a step has ended; the heartbeat of a step that has not ended is no progress."""
        if any(row.status != STATUS_PENDING for row in rows):
            self.progress()

    def progress(self) -> None:
        """Note that a step or an attempt has ended and the process lives: the next write lifts the suspicions against
        the run.
        """
        self.suspected = False
        self._run.claimed.crashes = ()
        self.lift()

    def write_alone(self, begin: Callable[[], None]) -> None:
        """Let another transaction write: call `begin` in its turn, and write nothing more until `written_alone`."""
        self._queue.append(begin)
        self._let_next_write()

    def written_alone(self) -> None:
        """Note that the transaction that began last has ended, and write what was gathered meanwhile."""
        self._writing_alone = False
        self._let_next_write()
        outcome, self._outcome = self._outcome, None
        self.flush(outcome)

    def _let_next_write(self) -> None:
        if self._writing_alone or self._next is not None or not self._queue:
            return
        self.flush()
        begin = self._next = self._queue.pop(0)
        if self._in_flight:
            self._in_flight[-1][1].append(lambda: self._begin(begin))
        else:
            self._begin(begin)

    def _begin(self, begin: Callable[[], None]) -> None:
        if self._next is begin:
            self._next, self._writing_alone = None, True
            begin()

    def _committed(self, write: Write, at: datetime) -> None:
        run = self._run
        run.host.observe_time(at)
        run_changes = write.run_changes
        if run_changes is not None:
            if run_changes.messages:
                run.host.publish(run_changes.messages)
            if run_changes.cancels:
                run.host.asked()
        deliveries, calls = self._in_flight.popleft()
        if run.closed:
            return
        for delivery in deliveries:
            delivery.at = at
            delivery.committed = True
        if rows := write.rows:
            self.witness = rows[-1][_LOCATION_AND_STATUS]  # type: ignore[assignment]
        if write.outcome is not None:
            run.left(write.outcome)
            return
        for call in calls:
            if not run.closed:
                call()
        run.host.schedule(run)  # `run.schedule`, inlined: every write passes here

    def _refused(self, write: Write, error: BaseException) -> None:
        run = self._run
        self._in_flight.popleft()
        self._next = None
        self._queue.clear()
        if isinstance(write.outcome, Failed) and not isinstance(error, LeaseLost):
            # Not even the failure can be stored. The lease ends with the worker, and the log holds this by then.
            log.error("%s: the database refused its failure: %s", run.label, error, extra=fields_of(run.claimed))
            run.leave()
        else:
            run.lost(error)

    def forget_rows(self, moved: int) -> None:
        """Count rows that have left active history."""
        self._active_rows -= moved

    def count_row(self) -> None:
        """Count one more row of active history."""
        self._active_rows += 1
        if self._active_rows > self._unremarkable_rows:
            self._tell_of_many_rows()

    def _tell_of_many_rows(self) -> None:
        limits = self._run.limits
        if self._active_rows == limits.warn_rows:
            with offstage():  # it may be the run's own code that has called a step
                log.warning(
                    "%s has %d rows of active history, which every wake-up reads again. Put its repetition in "
                    "`ctx.loop(...)`, whose finished turns are forgotten.",
                    self._run.label,
                    self._active_rows,
                    extra=fields_of(self._run.claimed),
                )
        elif self._active_rows > limits.max_rows:
            self._run.note_fatal(
                EngineError(
                    f"{self._run.label} has more than {limits.max_rows} rows of active history. Expected: repetition "
                    "stands in `ctx.loop(...)`, whose finished turns are forgotten. Raise the worker's "
                    "`max_active_rows` to let this one go on, then retry it."
                )
            )
