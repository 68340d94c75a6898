"""What the death of a process that held one workflow alone is blamed on: its activities that were in flight, or its
code.

No attempt's beginning is recorded. It need not be: up to the end of its history the code asks for the same steps again,
so that the activities that are about to begin when a replay first comes to rest are those that were in flight when the
process died. Each has spent an attempt on it. When there are none, the code itself has ended its process, or will
before it comes to rest.

Most deaths are accidents: only from the third in a row, without progress in between, are they counted. But an activity
of one attempt waits until a death is certain, and then does not begin again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgflow.errors import WorkerCrashed
from pgflow.model.claims import CONFIRM

if TYPE_CHECKING:
    from pgflow.execution.activities.runner import ActivityCall
    from pgflow.execution.engine.run import Run
    from pgflow.model.claims import Claimed

COUNTED_FROM = 3
"""The first death in a row that is counted as an attempt."""


def blame(run: Run, starting: list[ActivityCall]) -> list[ActivityCall]:
    """At the first rest, count deaths as attempts of the activities that were in flight; what comes
    back may begin now.
    """
    claimed = run.claimed
    certain = (claimed.suspected_at or claimed.now) + CONFIRM
    error = WorkerCrashed(
        f"the process of {_names(claimed)} died while this attempt was under way, and nothing else was running in it"
    )
    blamed = [call for call in starting if call.caller.may_have_run(certain)]
    if claimed.suspicions < COUNTED_FROM:
        blamed = [call for call in blamed if call.caller.attempts_allowed == 1]
    if not blamed:
        pass
    elif claimed.now < certain:
        run.finish_together([lambda call=call: call.caller.put_off(certain) for call in blamed])  # type: ignore[misc]
    else:
        run.outgoing.count_crashes()
        run.finish_together([lambda call=call: call.caller.attempt_ended(None, error) for call in blamed])  # type: ignore[misc]
    claimed.crashes = ()
    return [call for call in starting if call not in blamed]


def too_many(claimed: Claimed, most: int) -> WorkerCrashed | None:
    """The error of a workflow whose code has ended so many processes, without progress, that it is not run any more."""
    times = len(claimed.crashes)
    if times < max(most, COUNTED_FROM + 1):  # until then it may be an activity's doing
        return None
    return WorkerCrashed(
        f'workflow "{claimed.name}" {claimed.workflow_id}: the processes that ran it died {times} times '
        f"({_names(claimed)}), each time while they ran nothing else, without an activity in flight and without a "
        "step recorded in between: its own code ends them (a fault in native code, os._exit, too much memory). Mend "
        "the code, then retry it; move heavy work into an activity, whose attempts are counted."
    )


def _names(claimed: Claimed) -> str:
    workers = claimed.crashes
    return f"worker{'s' if len(workers) > 1 else ''} {', '.join(map(str, workers))}"
