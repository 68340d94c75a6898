"""How a run leaves, as it is written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Suspended:
    """The workflow sleeps: its lease ends with this write.

    `wake_at` is when it may be claimed again; None: an event wakes it.
    `waiting_for` names the signals that wake it; `awaits_children`: so does the end of a child.
    `mailbox` is the last place in the mailbox that the run had seen: if the row knows of a later one (a signal, the end
    of a child), or of a request to cancel, the workflow is pending at once instead of sleeping; if it is to be
    paused, it is paused.
    """

    wake_at: datetime | None
    waiting_for: tuple[str, ...] = ()
    mailbox: int = 0
    awaits_children: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """The workflow returned: its output is stored, its run row goes."""

    output: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The workflow ended with an error (JSON of class, message, traceback): its run row stays, as `failed`.

    `reset` are the locations of the steps that a retry runs again. `fork_before`, where the code had gone on from the
    failure, is the location before which to fork it: a retry is refused then.
    """

    error: str
    reset: tuple[str, ...] = ()
    fork_before: str | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The cancellation left the workflow's code: the workflow has ended, its run row goes."""


@dataclass(frozen=True, slots=True)
class Released:
    """The worker hands the workflow back unfinished: paused if that was asked for, else claimable by another.

    `wake_at` is the earliest moment for that; None: at once.
    """

    wake_at: datetime | None = None


Outcome = Suspended | Completed | Failed | Cancelled | Released
