"""What people and programs see of pgflow while it runs: log records, and later what they are counted by.

Nothing here decides anything, and nothing waits. A log record about a workflow has fields, which are attributes of the
record and keys of the JSON that `pgflow worker --log-format json` writes:

    workflow_id   the workflow's id, as text
    workflow      its registered name
    location      the step, as displayed: {2, 144, 1}
    activity      the activity's name
    attempt       which of its attempts, from 1

The loggers: `pgflow.workflow` (a workflow has failed: one ERROR), `pgflow.activity` (an attempt has failed: one
WARNING), `pgflow.execution`, `pgflow.worker`, `pgflow.store`. What a workflow's or an activity's own code logs through
`ctx.logger` goes to the logger of the module that defines it.
"""
