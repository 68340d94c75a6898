-- Workflows by name, status and the like, youngest first, whatever their ids are, and where the scan ended if it was cut off before
-- there were enough: one row at least, of nulls where nothing was found.
-- {branches}, {edges}: one for each way to find them, of which the conditions that are looked at once leave one. {limit} is a number of its own
-- right: plans for a limit that they do not know expect it to be large.
WITH {decisions}
found AS MATERIALIZED (
    SELECT b.created_at, b.id FROM (
        {branches}
    ) AS b
    ORDER BY b.created_at DESC, b.id DESC LIMIT {limit}
),
edge AS MATERIALIZED (
    {edges}
)
SELECT
    o.id, o.name, o.status, o.queue, o.priority, o.tags, o.input::text, o.output::text, o.error::text,
    o.created_at, o.completed_at, nullif(o.wake_at, 'infinity'), o.waiting_for, o.worker_id, o.parent_id,
    edge.created_at, edge.id
FROM (SELECT 1) AS once
LEFT JOIN edge ON (SELECT count(*) FROM found) < {limit}
LEFT JOIN {schema}.workflow_overview AS o ON o.id = ANY (ARRAY(SELECT found.id FROM found))
ORDER BY o.created_at DESC, o.id DESC
