"""The tests that `make quick` runs: some of each area, together in under a minute on two quiet cores.

They have the mark `quick`. The entries are beginnings of test ids: a file, a folder, or one test. A test is chosen
because it passes through much of its area and waits for little.
"""

from __future__ import annotations

QUICK = (
    "tests/test_faults.py",
    "tests/test_functions.py",
    "tests/test_layers.py",
    "tests/test_location.py",
    "tests/test_quick.py",
    "tests/test_retry.py",
    "tests/activities/test_state.py",
    "tests/bad_input/test_calls.py",
    "tests/bad_input/test_declarations.py",
    "tests/children/test_children.py::test_a_failure_reaches_the_parent",
    "tests/children/test_children.py::test_a_parent_sleeps_while_its_child_runs",
    "tests/cli/test_workflow.py",
    "tests/client/test_start.py",
    "tests/codec/test_stored_errors.py",
    "tests/codec/test_payloads.py",
    "tests/conformance/test_batches.py",
    "tests/conformance/test_outcomes.py",
    "tests/deploy/",
    "tests/doctor/test_server.py",
    "tests/docs/test_surface.py",
    "tests/execution/test_ends.py",
    "tests/execution/test_steps.py",
    "tests/execution/test_tasks.py",
    "tests/history/",
    "tests/messages/test_topics.py",
    "tests/observe/test_http_port.py",
    "tests/operate/test_fork.py",
    "tests/schema/test_functions.py",
    "tests/signals/test_send.py",
    "tests/store/test_journal.py",
    "tests/testing/test_run.py",
    "tests/versions/test_decided.py",
    "tests/worker/test_blame.py",
    "tests/worker/test_takeover.py::test_a_killed_worker_is_noticed_long_before_its_lease_expires",
)
