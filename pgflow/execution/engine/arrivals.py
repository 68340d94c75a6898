"""News for a run in memory: signals delivered to it, children that ended, requests to cancel, pause or resume it."""

from __future__ import annotations

from pgflow.execution.engine.interfaces import RunView
from pgflow.model.claimed import Arrived


def receive(run: RunView, arrived: Arrived) -> bool:
    """Take news from outside; signals go to the listens that wait for them, in the order of their locations.

    Returns:
        False when earlier news was missed and has to be read first.
    """
    claimed = run.claimed
    if arrived.epoch != claimed.epoch or arrived.after > claimed.mailbox:
        return False
    new = [signal for signal in arrived.signals if signal.number > claimed.mailbox]
    claimed.mailbox = max(claimed.mailbox, arrived.mailbox)
    if arrived.cancel and arrived.looked_at > run.cancel_taken_at:
        claimed.cancel_requested = True
        if arrived.timed_out is not None:
            claimed.timed_out = arrived.timed_out
    if run.closed or run.outcome is not None:
        return True  # the write in flight, or the next claim, finds it in the database
    run.pausing = arrived.pause
    apply_requests(run)
    run.mailbox.add(new)
    run.offer_signals()
    run.schedule()
    return True


def apply_requests(run: RunView) -> None:
    """Apply the requests made of a run: to pause, to resume, or to cancel. A cancellation reaches the code before a
    pause does.

    A run that is to be paused delivers nothing to its code while its activities are in flight; once they have ended
    it is handed back.
    """
    run.halted = run.leaving or (run.pausing and not run.claimed.cancel_requested)
