"""What `pgflow doctor` looks at: small checks, each of one statement whose work is bounded however much there is.

    asked --> a row for each thing that is wrong --> findings: expected, found, where, advice
       '----> an error (no right, too slow) -------> a finding that says so; the other checks go on

A check is a function that gives its `Query`; the list of all is `CHECKS`. All of them only read, and work on a hot
standby, as far as the server knows there what they ask.
"""

from __future__ import annotations

from pgflow.store.doctor.check import Check, CheckContext
from pgflow.store.doctor.check_histories import HISTORY_CHECKS
from pgflow.store.doctor.check_server import SERVER_CHECKS
from pgflow.store.doctor.check_vacuum import VACUUM_CHECKS
from pgflow.store.doctor.check_work import WORK_CHECKS

CHECKS: tuple[Check, ...] = (*SERVER_CHECKS, *VACUUM_CHECKS, *WORK_CHECKS, *HISTORY_CHECKS)
"""All of them, in the order in which they are made."""

__all__ = ["CHECKS", "CheckContext", "Check"]
