"""News for a run in memory: signals that were delivered to it, ends of children, requests to cancel or to pause it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgflow.execution.ports import Arrived

if TYPE_CHECKING:
    from pgflow.execution.run import Run


def receive(run: Run, arrived: Arrived) -> bool:
    """Take news from outside: signals go to whoever listens for them, in the order of locations.

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
    run.mailbox.add(new)
    run.offer_signals()
    if arrived.pause:
        run.stop()
    run.host.schedule(run)
    return True
