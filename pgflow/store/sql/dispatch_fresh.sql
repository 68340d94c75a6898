-- Starts workflows that differ only in id and input, under ids that nobody can have used: they are inserted without looking for
-- each of them first, which would double the cost. If one exists all the same (it was sent before and the answer was lost), that is
-- an error which starts nothing, and dispatch.sql takes over.
WITH given AS MATERIALIZED (
    SELECT g.id, g.input::json AS input FROM unnest(%(ids)s::uuid[], %(inputs)s::text[]) AS g (id, input)
),
started AS (
    INSERT INTO {schema}.workflows (id, name, tags, input)
    SELECT id, %(name)s::text, %(tags)s::jsonb, input FROM given
),
running AS (
    INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at)
    SELECT id, %(name)s::text, %(queue)s::text, %(priority)s::int, 'pending', greatest(%(run_at)s::timestamptz, now())
    FROM given
)
SELECT 1
