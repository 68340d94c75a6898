-- Signals that were set aside, by their ids.
SELECT d.id, d.workflow_id, d.workflow_name, d.name, d.body::text, d.problem, d.created_at, d.set_aside_at, d.sender_id
FROM {schema}.dead_signals AS d
WHERE (%(workflow_id)s::uuid IS NULL OR d.workflow_id = %(workflow_id)s::uuid)
  AND (%(name)s::text IS NULL OR d.name = %(name)s::text)
  AND (%(after)s::uuid IS NULL OR d.id > %(after)s::uuid)
ORDER BY d.id
LIMIT %(limit)s::int
