-- What a workflow waits for, in order of execution.
SELECT
    h.at, h.iteration, h.version, h.kind, h.name, h.status, h.attempts, h.input::text, h.output::text, h.error::text,
    h.created_at, h.completed_at, h.wake_at, h.forgotten, h.rewind
FROM {schema}.history AS h
WHERE h.workflow_id = %(id)s::uuid AND NOT h.forgotten AND h.status = 'pending'
ORDER BY h.location
LIMIT %(limit)s::bigint
