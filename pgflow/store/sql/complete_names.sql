-- The names of workflows that begin so, among the first thousand: one look at the index for each name, however many
-- workflows there are. What begins so need not stand together in the database's collation.
WITH RECURSIVE found AS (
    (SELECT w.name, 1 AS number FROM {schema}.workflows AS w ORDER BY w.name LIMIT 1)
    UNION ALL
    SELECT n.name, f.number + 1
    FROM found AS f
    CROSS JOIN LATERAL (
        SELECT w.name FROM {schema}.workflows AS w WHERE w.name > f.name ORDER BY w.name LIMIT 1
    ) AS n
    WHERE f.number < 1000
)
SELECT f.name FROM found AS f WHERE starts_with(f.name, %(begin)s::text) ORDER BY f.name LIMIT %(most)s::bigint
