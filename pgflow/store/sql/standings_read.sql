-- The status of workflows, and the outcome of those that have ended. Unknown ids have no line.
SELECT w.id, w.name, coalesce(w.status, r.status), w.output::text, w.error::text
FROM unnest(%(ids)s::uuid[]) AS given (id)
JOIN {schema}.workflows AS w ON w.id = given.id AND w.status IS DISTINCT FROM 'removing'
LEFT JOIN LATERAL (SELECT * FROM {schema}.runs AS run WHERE run.workflow_id = given.id LIMIT 1) AS r ON true
