-- Signals that were set aside, by type. By the view, since not everybody sees why they were.
SELECT dead.name, count(*)::int, (array_agg(dead.id ORDER BY dead.id))[1:5], (array_agg(dead.workflow_id ORDER BY dead.id))[1:5]
FROM (
    SELECT d.id, d.name, d.workflow_id FROM {schema}.dead_signals AS d ORDER BY d.id LIMIT %(bound)s::int
) AS dead
GROUP BY dead.name
ORDER BY count(*) DESC
LIMIT 20
