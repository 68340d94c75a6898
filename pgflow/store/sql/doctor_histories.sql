-- Workflows that may go on and have many rows of active history. Who is looked at is found in a sample of so many pages of `events` (all, where it has no
-- more); then their rows are counted, up to `bound`.
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
counted AS (
    SELECT r.workflow_id, r.name, counted.rows
    FROM sampled
    JOIN {schema}.runs AS r ON r.workflow_id = sampled.workflow_id AND r.status <> 'failed'
    CROSS JOIN LATERAL (
        SELECT count(*)::int AS rows FROM (SELECT FROM {schema}.events AS e WHERE e.workflow_id = r.workflow_id LIMIT %(bound)s::int) AS few
    ) AS counted
)
SELECT counted.workflow_id, counted.name, counted.rows FROM counted WHERE counted.rows >= %(rows)s::int ORDER BY counted.rows DESC LIMIT 20
