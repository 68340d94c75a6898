-- Workflows by name, status and the like, youngest first, whatever their ids are.
-- {conditions}: one for each thing that is asked for, so that the plan can take that one's index; {runs} joins those that may go on,
-- where one of the conditions is theirs. {limit} is a number of its own right: plans for a limit that they do not know expect it to be large.
SELECT
    o.id, o.name, o.status, o.queue, o.priority, o.tags, o.input::text, o.output::text, o.error::text,
    o.created_at, o.completed_at, nullif(o.wake_at, 'infinity'), o.waiting_for, o.worker_id, o.parent_id
FROM {schema}.workflow_overview AS o
WHERE o.id = ANY (ARRAY(
    SELECT w.id
    FROM {schema}.workflows AS w {runs}
    WHERE {conditions}
    ORDER BY w.created_at DESC, w.id DESC
    LIMIT {limit}))
ORDER BY o.created_at DESC, o.id DESC
