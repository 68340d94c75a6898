-- Workflows by their ids.
SELECT
    o.id, o.name, o.status, o.queue, o.priority, o.tags, o.input::text, o.output::text, o.error::text,
    o.created_at, o.completed_at, nullif(o.wake_at, 'infinity'), o.waiting_for, o.worker_id, o.parent_id
FROM {schema}.workflow_overview AS o
WHERE o.id = ANY(%(ids)s::uuid[]) AND o.status IS DISTINCT FROM 'removing'
