"""News for a run in memory: signals that were delivered to it, ends of children, requests to cancel it, to pause it or
to go on.
"""

from __future__ import annotations

from pgflow.execution.engine.interfaces import RunView
from pgflow.model.claimed import Arrived


def receive(run: RunView, arrived: Arrived) -> bool:
    """Take news from outside: signals go to the listens that wait for them, in the order of locations.

    Returns:
        False when earlier news were missed: they have to be read first.
    """
    claimed = run.claimed
    if arrived.epoch != claimed.epoch or arrived.after > claimed.mailbox:
        return False
    new = [signal for signal in arrived.signals if signal.number > claimed.mailbox]
    claimed.mailbox = max(claimed.mailbox, arrived.mailbox)
    if arrived.cancel and arrived.looked_at > run.cancel_taken_at:
        claimed.cancel_requested = True
    if run.closed or run.outcome is not None:
        return True  # the write under way, or the next claim, finds them in the database
    run.pausing = arrived.pause
    apply_requests(run)
    run.mailbox.add(new)
    run.offer_signals()
    run.schedule()
    return True


def apply_requests(run: RunView) -> None:
    """Apply what is asked of a run now: a pause, the end of one, or a cancellation, which reaches the code before a
    pause.

    While activities of a run that is to be paused are in flight nothing is delivered to its code; then it is handed
    back.
    """
    run.halted = run.leaving or (run.pausing and not run.claimed.cancel_requested)
