-- Enters into finders who holds, among some runs by their ids, a workflow in active history that it has not started itself, and extends the lease
-- of the worker doing it. No row comes back if that lease is lost; an id of null if there are no more.
WITH held AS (
    UPDATE {schema}.chores AS c SET held_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE c.name = 'finders' AND c.holder = %(holder)s::uuid AND c.held_until > now()
    RETURNING c.name
),
page AS MATERIALIZED (
    SELECT r.workflow_id AS id FROM {schema}.runs AS r
    WHERE EXISTS (SELECT FROM held) AND (%(after)s::uuid IS NULL OR r.workflow_id > %(after)s::uuid)
    ORDER BY r.workflow_id LIMIT %(rows)s::int
),
entered AS (
    INSERT INTO {schema}.finders (workflow_id, finder_id, location)
    SELECT child.id, holds.workflow_id, holds.location
    FROM page
    CROSS JOIN LATERAL (
        SELECT e.workflow_id, e.location, e.output->>'id' AS id
        FROM {schema}.events AS e
        WHERE e.workflow_id = page.id AND e.kind = 'child_workflow' AND e.status = 'completed' OFFSET 0
    ) AS holds
    CROSS JOIN LATERAL (
        SELECT w.id, w.parent_id FROM {schema}.workflows AS w
        WHERE w.id = CASE WHEN holds.id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN holds.id::uuid END LIMIT 1
    ) AS child
    WHERE child.parent_id IS DISTINCT FROM holds.workflow_id
    ON CONFLICT DO NOTHING
)
SELECT (SELECT page.id FROM page ORDER BY page.id DESC LIMIT 1) FROM held
