-- The active history of runs, by id, that a claim believed to be still in this worker's memory and that had left it. (Their
-- inputs: claimed_inputs.sql. claimed_history.sql reads the history of all other runs of a claim.)
SELECT
    e.workflow_id::text, e.location, e.iteration, e.seq, e.version, e.kind, e.name, e.status, e.attempts,
    coalesce(e.completed_at, e.created_at), CASE WHEN %(inputs)s::boolean OR e.kind = 'removed' THEN e.input::text END,
    e.output::text, e.error::text, e.wake_at, e.turn_state::text, e.turn_now, e.loop_progress, e.loop_state::text,
    e.turn_seq, e.loop_seq
FROM {schema}.events AS e
WHERE e.workflow_id = ANY (%(ids)s::uuid[])
ORDER BY e.workflow_id, e.location
