"""What to blame when a process dies while it runs one workflow alone: the activities in flight, or the code.

As long as no process has died, the beginning of an attempt is not recorded. It need not be: up to the end of its
history the code asks for the same steps again, so the activities that are about to begin when a replay first comes to
rest are those that were in flight when the process died. Each has spent an attempt on it. If there are none, the code
itself has ended its process, or will before it comes to rest.

From then on, until there is progress, attempts are recorded before they begin, and so is always the last one of
several: killing workers from outside must not use up attempts that never began.

A counted death cannot be taken back. So none is counted before it is certain; until then the workflow is left alone.
"""

from __future__ import annotations

from functools import partial

from pgflow.errors import WorkerCrashed
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.engine.interfaces import RunView
from pgflow.history.events import STATUS_PENDING
from pgflow.model.claimed import CONFIRM, Claimed

OF_UNKNOWN_CAUSE = 2
"""Deaths before which a replay has to tell whether they are the code's doing or an activity's."""


def acquit(run: RunView) -> None:
    """Stop suspecting a workflow that has made progress since; workers of the previous version do not record that."""
    claimed = run.claimed
    at = claimed.suspected_at
    if at is not None and any(event.at > at and event.status != STATUS_PENDING for event in claimed.events):
        claimed.suspicions = 0
        run.outgoing.progress()
        run.cautious = False


def begin(run: RunView, starting: list[ActivityCall]) -> None:
    """At rest: let attempts begin, once they are recorded where that is due; those in flight at a death have failed."""
    if not run.cautious:
        _begin(run, starting)
        return
    starting = [call for call in starting if not call.cancelled]
    if run.claimed.crashes and (starting or not (run.loop.frozen or run.order.on_their_way or run.outgoing.call_waits)):
        starting = _blame(run, starting)
    if starting:
        for call in starting:
            call.caller.record_first()
        _begin(run, starting)
    run.cautious = run.outgoing.suspected


def _begin(run: RunView, starting: list[ActivityCall]) -> None:
    for call in starting:
        run.host.start_activity(call)


def _blame(run: RunView, starting: list[ActivityCall]) -> list[ActivityCall]:
    """Count a death; returns the attempts that may begin now."""
    claimed = run.claimed
    died_at = claimed.suspected_at or claimed.now
    # A process that knew of an earlier death recorded what it began, once it had counted that death. If none of them
    # has been counted, no replay since the first got that far: what is asked for now was in flight then.
    recorded = claimed.suspicions > len(claimed.crashes)
    blamed = [call for call in starting if call.caller.was_under_way(died_at, recorded)]
    fatal = None if blamed or len(claimed.crashes) < run.limits.crashes else _crashed(claimed)
    if (blamed or fatal) and claimed.now < died_at + CONFIRM:
        run.back_at = died_at + CONFIRM
        run.give_up_attempts()
        run.outgoing.drop()
        return []
    if fatal:
        run.note_fatal(fatal)
        return []
    if blamed:
        error = WorkerCrashed(
            f"the process of {_names(claimed)} died while this attempt was under way, and nothing else was "
            "running in it"
        )
        run.outgoing.count_crashes()
        run.finish_together([partial(call.caller.attempt_died, error, died_at) for call in blamed])
    claimed.crashes = ()
    return [call for call in starting if call not in blamed]


def too_many(claimed: Claimed, most: int) -> WorkerCrashed | None:
    """The error of a workflow that is given up because its code has killed too many processes without progress."""
    return _crashed(claimed) if len(claimed.crashes) >= max(most, OF_UNKNOWN_CAUSE) else None


def _crashed(claimed: Claimed) -> WorkerCrashed:
    times = len(claimed.crashes)
    return WorkerCrashed(
        f'workflow "{claimed.name}" {claimed.workflow_id}: the processes that ran it died {times} '
        f"time{'s' if times > 1 else ''} ({_names(claimed)}), each time while they ran nothing else, without an "
        "activity in flight and without a step recorded in between: its own code ends them (a fault in native code, "
        "os._exit, too much memory). Mend the code, then retry it; move heavy work into an activity, whose attempts "
        "are counted."
    )


def _names(claimed: Claimed) -> str:
    workers = claimed.crashes
    return f"worker{'s' if len(workers) > 1 else ''} {', '.join(map(str, workers))}"
