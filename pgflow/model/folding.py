"""How writes of one location become one row: in the database, in a batch before it is sent, and in memory."""

from __future__ import annotations

from pgflow.history.events import STATUS_PENDING, Event
from pgflow.model.rows import EventRow


def folded(earlier: EventRow | Event, later: EventRow) -> EventRow | None:
    """The row of a location after another write; None: the write changes nothing.

    A row that has ended is not replaced, nor a pending one by one of fewer attempts. What only the earlier one knows
    is kept, and a loop's progress never goes back. The statements of `store/sql` that write history do the same.

    Example:
        folded(pending, completed)   # the completed row, with the pending one's turn_state if it had one
    """
    if earlier.status != STATUS_PENDING or (later.status == STATUS_PENDING and later.attempts < earlier.attempts):
        return None
    ahead = earlier.loop_progress is not None and earlier.loop_progress > (later.loop_progress or 0)
    return later._replace(
        input=earlier.input if later.input is None else later.input,
        turn_state=earlier.turn_state if later.turn_state is None else later.turn_state,
        turn_now=earlier.turn_now if later.turn_now is None else later.turn_now,
        turn_seq=earlier.turn_seq if later.turn_seq is None else later.turn_seq,
        loop_progress=earlier.loop_progress if ahead or later.loop_progress is None else later.loop_progress,
        loop_state=earlier.loop_state if ahead or later.loop_state is None else later.loop_state,
    )
