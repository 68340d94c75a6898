-- Gives the runs of dead workers to whoever claims them next; those that were to be paused are paused. A statement of its own, after the workers' rows are
-- locked, so that its snapshot holds the last claim of each. What a transaction of the dead still has locked is skipped
-- and found by the next look.
WITH held AS MATERIALIZED (
    SELECT r.workflow_id
    FROM unnest(%(ids)s::bigint[]) AS dead (id)
    JOIN {schema}.runs AS r ON r.worker_id = dead.id AND r.status = 'running'
    ORDER BY r.workflow_id
    LIMIT %(limit)s::int
    FOR NO KEY UPDATE OF r SKIP LOCKED
),
freed AS (
    UPDATE {schema}.runs AS r SET
        status = CASE WHEN r.pause_requested AND NOT r.cancel_requested THEN 'paused' ELSE 'pending' END,
        wake_at = CASE WHEN r.pause_requested AND NOT r.cancel_requested THEN NULL ELSE now() END,
        pause_requested = r.pause_requested AND r.cancel_requested, waiting_for = NULL, worker_id = NULL, claim = NULL,
        last_worker = NULL
    FROM held
    WHERE r.workflow_id = held.workflow_id
    RETURNING r.queue
)
SELECT count(*)::int, coalesce(array_agg(DISTINCT freed.queue), '{}') FROM freed
