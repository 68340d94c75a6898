-- As exporter_live.sql, workflows that have ended and are kept.
WITH size AS (
    SELECT least(1.0, %(pages)s::float8 * current_setting('block_size')::int / greatest(1, pg_relation_size(to_regclass(%(table)s)))) AS part
)
SELECT w.name, w.status, count(*) / (SELECT size.part FROM size)
FROM {schema}.workflows AS w TABLESAMPLE SYSTEM ((SELECT 100 * size.part FROM size))
WHERE w.status IN ('completed', 'cancelled')
GROUP BY w.name, w.status
ORDER BY count(*) DESC
LIMIT %(series)s::int
