-- Workflows in whose company processes died, `often` times or more.
SELECT s.workflow_id, s.name, s.times, s.status
FROM (
    SELECT r.workflow_id, r.name, r.status, cardinality(r.suspicions) AS times FROM {schema}.runs AS r WHERE r.suspicions IS NOT NULL LIMIT %(bound)s::int
) AS s
WHERE s.times >= %(often)s::int
ORDER BY s.times DESC, s.workflow_id
LIMIT 20
