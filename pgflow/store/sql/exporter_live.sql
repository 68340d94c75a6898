-- Workflows that may go on, or have failed, by name and status: from as many pages of their table as `pages`, spread over all of it, which is
-- the whole of it where it has no more. Rewound ones stand there with a character behind their name. `part` is the part that was read.
WITH size AS (
    SELECT least(1.0, %(pages)s::float8 * current_setting('block_size')::int / greatest(1, pg_relation_size(to_regclass(%(table)s)))) AS part
)
SELECT rtrim(r.name, chr(31)), r.status, count(*) / (SELECT size.part FROM size)
FROM {schema}.runs AS r TABLESAMPLE SYSTEM ((SELECT 100 * size.part FROM size))
GROUP BY rtrim(r.name, chr(31)), r.status
ORDER BY count(*) DESC
LIMIT %(series)s::int
