-- Loops of workflows that may go on with many turns, and many rows, that have not left active history. Who is looked at is found as in
-- doctor_histories.sql.
WITH size AS (
    SELECT least(1.0, %(pages)s::float8 * current_setting('block_size')::int / greatest(1, pg_relation_size(to_regclass(%(events)s::text)))) AS part
),
sampled AS MATERIALIZED (
    SELECT e.workflow_id, count(*) AS seen
    FROM {schema}.events AS e TABLESAMPLE SYSTEM ((SELECT 100 * size.part FROM size))
    GROUP BY e.workflow_id
    HAVING count(*) >= greatest(1, %(rows)s::int * 0.5 * (SELECT size.part FROM size))
    ORDER BY count(*) DESC
    LIMIT 200
),
loops AS (
    SELECT r.workflow_id, r.name, l.location, coalesce(l.loop_progress, 0) AS progress, inside.rows, inside.last
    FROM sampled
    JOIN {schema}.runs AS r ON r.workflow_id = sampled.workflow_id AND r.status <> 'failed'
    CROSS JOIN LATERAL (
        SELECT e.location, e.loop_progress FROM {schema}.events AS e
        WHERE e.workflow_id = r.workflow_id AND e.kind = 'loop' AND e.status = 'pending'
        ORDER BY e.location LIMIT 5
    ) AS l
    CROSS JOIN LATERAL (
        SELECT count(*)::int AS rows, max(few.location) AS last
        FROM (
            SELECT e.location FROM {schema}.events AS e
            WHERE e.workflow_id = r.workflow_id AND e.location > l.location || ',' AND e.location < l.location || '-'
            ORDER BY e.location DESC LIMIT %(bound)s::int
        ) AS few
    ) AS inside
),
turns AS (
    SELECT loops.*, regexp_replace(split_part(substr(loops.last, length(loops.location) + 2), ',', 1), '[a-z]', '', 'g')::int - loops.progress AS turns
    FROM loops WHERE loops.rows >= %(rows)s::int
)
SELECT turns.workflow_id, turns.name, '{' || replace(regexp_replace(turns.location, '[a-z]', '', 'g'), ',', ', ') || '}', turns.progress, turns.turns, turns.rows
FROM turns WHERE turns.turns >= %(turns)s::int ORDER BY turns.turns DESC LIMIT 20
