"""What people and programs see of pgflow while it runs: log records, metrics, and the port that shows them.

Nothing here decides anything, and nothing waits.

A worker that shows itself has `WorkerMetrics`, which the parts that know what has happened tell in plain data; for all
others that is None. `meters.py` counts without a library, `exposition.py` writes that down with prometheus-client,
`http_port.py` serves it, and `process_reports.py` brings it from several processes to one port. The metrics of the
database come from `pgflow/database_metrics.py`.

A log record about a workflow has fields, which are attributes of the record and keys of the JSON that `pgflow worker
--log-format json` writes:

    workflow_id   the workflow's id, as text
    workflow      its registered name
    location      the step, as displayed: {2, 144, 1}
    activity      the activity's name
    attempt       which of its attempts, from 1

The loggers: `pgflow.workflow` (a workflow has failed: one ERROR), `pgflow.activity` (an attempt has failed: one
WARNING), `pgflow.execution`, `pgflow.worker`, `pgflow.observe`, `pgflow.store`. What a workflow's or an activity's own
code logs through `ctx.logger` goes to the logger of the module that defines it.
"""
