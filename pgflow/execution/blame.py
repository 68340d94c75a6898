"""What the death of a process that held one workflow alone is blamed on: its activities that were in flight, or its code.

No attempt's beginning is recorded. It need not be: up to the end of its history the code asks for the same steps again, so that the
activities that are about to begin when a replay first comes to rest are those that were in flight when the process died. Each has spent
an attempt on it. When there are none, the code itself has ended its process, or will before it comes to rest.

The first such death is counted only when a second follows: most are accidents. But an activity that has no attempt left waits until the
death is certain, and then does not begin again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgflow.errors import WorkerCrashed
from pgflow.execution.ports import CONFIRM

if TYPE_CHECKING:
    from pgflow.execution.attempts import ActivityCall
    from pgflow.execution.ports import Claimed
    from pgflow.execution.run import Run

MOST_AT_ONCE = 2
"""Deaths that are counted at once, at most: earlier ones may have been the code's."""


def blame(run: Run, starting: list[ActivityCall]) -> list[ActivityCall]:
    """At the first rest, count deaths as attempts of the activities that were in flight; what comes back may begin now."""
    claimed = run.claimed
    deaths = min(len(claimed.crashes), MOST_AT_ONCE)
    certain = (claimed.suspected_at or claimed.now) + CONFIRM
    error = WorkerCrashed(f"the process of {_names(claimed)} died while this attempt was under way, and nothing else was running in it")
    blamed = [call for call in starting if call.caller.may_have_run(certain)]
    if claimed.now < certain:
        blamed = [call for call in blamed if call.caller.attempt_is_last(error)]
        run.finish_together([lambda call=call: call.caller.put_off(certain) for call in blamed])  # type: ignore[misc]
    elif blamed:
        run.outgoing.count_crashes()
        run.finish_together([lambda call=call: call.caller.attempt_died(deaths, error) for call in blamed])  # type: ignore[misc]
    claimed.crashes = ()
    return [call for call in starting if call not in blamed]


def too_many(claimed: Claimed, most: int) -> WorkerCrashed | None:
    """The error of a workflow whose code has ended so many processes, without progress, that it is not run any more."""
    times = len(claimed.crashes)
    if times < most:
        return None
    return WorkerCrashed(
        f'workflow "{claimed.name}" {claimed.workflow_id}: the processes that ran it died {times} times ({_names(claimed)}), each time while '
        "they ran nothing else, without an activity in flight and without a step recorded in between: its own code ends them (a fault in "
        "native code, os._exit, too much memory). Mend the code, then retry it; move heavy work into an activity, whose attempts are counted."
    )


def _names(claimed: Claimed) -> str:
    workers = claimed.crashes
    return f"worker{'s' if len(workers) > 1 else ''} {', '.join(map(str, workers))}"
