"""The floor's statements: pgflow's tables, pgflow's rows, and nothing that is not needed for them."""

from __future__ import annotations

CLAIM = """
WITH picked AS MATERIALIZED (
    SELECT r.workflow_id
    FROM pgflow.runs AS r
    WHERE r.queue = 'default' AND r.name = ANY (%(names)s::text[]) AND r.priority = 0
      AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL AND r.wake_at <= now()
    ORDER BY r.wake_at
    LIMIT %(limit)s::int
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE pgflow.runs AS r SET
    status = 'running', worker_id = %(worker)s::bigint, claim = 1, epoch = r.epoch + 1, wake_at = NULL
FROM picked
WHERE r.workflow_id = picked.workflow_id
RETURNING r.workflow_id::text, r.name, r.epoch
"""
"""Takes due runs under a new epoch."""

_FENCE = """
WITH fenced AS MATERIALIZED (
    SELECT asked.run, r.workflow_id
    FROM unnest(%(ids)s::uuid[], %(epochs)s::int[]) WITH ORDINALITY AS asked (workflow_id, epoch, run)
    JOIN pgflow.runs AS r ON r.workflow_id = asked.workflow_id
    WHERE r.worker_id = %(worker)s::bigint AND r.epoch = asked.epoch
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
)
"""

_STEPS = """
, written AS (
    INSERT INTO pgflow.events (workflow_id, location, seq, kind, name, status, attempts, input, output)
    SELECT fenced.workflow_id, v.location, v.seq, 'activity', 'nothing', 'completed', 1, '{}', v.output::json
    FROM unnest(%(run)s::int[], string_to_array(%(location)s::text, ' '), %(seq)s::int[],
        string_to_array(%(output)s::text, ' '))
        AS v (run, location, seq, output)
    JOIN fenced ON fenced.run = v.run
)
"""

_ENDS = """
, gone AS (
    DELETE FROM pgflow.runs AS r USING fenced WHERE r.workflow_id = fenced.workflow_id
        AND fenced.run = ANY (%(ended)s::int[])
),
finished AS (
    UPDATE pgflow.workflows AS w SET status = 'completed', output = '10', completed_at = now()
    FROM fenced
    WHERE w.id = fenced.workflow_id AND fenced.run = ANY (%(ended)s::int[])
)
"""


def write(steps: bool, ends: bool) -> str:
    """The statement of one batch: steps, completions or both, each fenced; it answers how many runs were still ours."""
    return _FENCE + _STEPS * steps + _ENDS * ends + "SELECT count(*) FROM fenced"
