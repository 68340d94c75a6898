-- Workflows by what they are called and how they stand, the youngest first (ids are in order of time).
-- {conditions}: one for each thing that is asked for, so that the plan can take that one's index. {limit} is a number of its
-- own right: plans for a limit that they do not know expect it to be large.
SELECT
    o.id, o.name, o.status, o.queue, o.priority, o.tags, o.input::text, o.output::text, o.error::text,
    o.created_at, o.completed_at, nullif(o.wake_at, 'infinity'), o.waiting_for, o.worker_id, o.parent_id
FROM {schema}.workflow_overview AS o
WHERE {conditions}
ORDER BY o.id DESC
LIMIT {limit}
