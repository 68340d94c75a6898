-- Workflows with their active history, as a replay reads it: one row a step, those of a workflow together and in order. Long
-- columns of the workflow itself are only in its first row. One statement, so that all of it is from one moment.
SELECT
    w.id, e.location, e.iteration, e.seq, e.version, e.kind, e.name, e.status, e.attempts,
    coalesce(e.completed_at, e.created_at), e.input::text,
    e.output::text, e.error::text, e.wake_at, e.turn_state::text, e.turn_now, e.loop_progress, e.loop_state::text,
    e.turn_seq, e.loop_seq,
    w.name, coalesce(w.status, r.status), coalesce(w.tags_given, w.tags), coalesce(w.seed, w.id), w.created_at, w.parent_id, now(), w.cancellations,
    CASE WHEN e.location IS NOT DISTINCT FROM first.location THEN w.input::text END,
    CASE WHEN e.location IS NOT DISTINCT FROM first.location THEN w.output::text END,
    CASE WHEN e.location IS NOT DISTINCT FROM first.location THEN w.error::text END
FROM {schema}.workflows AS w
LEFT JOIN {schema}.runs AS r ON r.workflow_id = w.id
LEFT JOIN LATERAL (
    SELECT earliest.location FROM {schema}.events AS earliest
    WHERE earliest.workflow_id = w.id
    ORDER BY earliest.location
    LIMIT 1
) AS first ON true
LEFT JOIN {schema}.events AS e ON e.workflow_id = w.id
WHERE w.id = ANY (%(ids)s::uuid[])
ORDER BY w.id, e.location
