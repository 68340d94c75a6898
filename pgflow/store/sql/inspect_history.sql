-- A workflow's history in order of execution.
SELECT
    h.at, h.iteration, h.version, h.kind, h.name, h.status, h.attempts, h.input::text, h.output::text, h.error::text,
    h.created_at, h.completed_at, h.wake_at, h.forgotten, h.rewind
FROM {schema}.history AS h
WHERE h.workflow_id = %(id)s::uuid AND (%(forgotten)s::boolean OR NOT h.forgotten)
  AND NOT EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = %(id)s::uuid AND w.status = 'removing')
ORDER BY h.location, h.rewind
LIMIT %(limit)s::bigint
