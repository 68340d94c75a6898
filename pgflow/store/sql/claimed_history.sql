-- The active history of the runs that a claim took, read under a snapshot that is younger than the claim's locks, so that it
-- holds the old owner's last commit. A run at its first epoch has no history yet. The rows of one run come in the order of their
-- locations, as its range of the index gives them: thousands of rows need no sort.
SELECT r.key, history.*
FROM (
    SELECT r.workflow_id, r.workflow_id::text AS key
    FROM {schema}.runs AS r
    WHERE r.worker_id = %(worker)s::bigint AND r.claim = %(claim)s::bigint AND r.status = 'running' AND r.epoch > 1
      AND r.last_worker IS DISTINCT FROM r.worker_id
) AS r
CROSS JOIN LATERAL (
    SELECT
        e.location, e.iteration, e.seq, e.version, e.kind, e.name, e.status, e.attempts,
        coalesce(e.completed_at, e.created_at), CASE WHEN %(inputs)s::boolean OR e.kind = 'removed' THEN e.input::text END,
        e.output::text, e.error::text, e.wake_at, e.turn_state::text, e.turn_now, e.loop_progress, e.loop_state::text,
        e.turn_seq, e.loop_seq
    FROM {schema}.events AS e
    WHERE e.workflow_id = r.workflow_id
    ORDER BY e.workflow_id, e.location
) AS history
