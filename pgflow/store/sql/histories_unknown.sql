-- How many workflows there are of other names than these: a hop along the index for each name, and a count up to a bound.
WITH RECURSIVE names (name) AS (
    (SELECT w.name FROM {schema}.workflows AS w ORDER BY w.name LIMIT 1)
    UNION ALL
    SELECT (SELECT w.name FROM {schema}.workflows AS w WHERE w.name > names.name ORDER BY w.name LIMIT 1)
    FROM names
    WHERE names.name IS NOT NULL
)
SELECT names.name, counted.workflows
FROM names
CROSS JOIN LATERAL (
    SELECT count(*) AS workflows
    FROM (SELECT FROM {schema}.workflows AS w WHERE w.name = names.name LIMIT %(bound)s::bigint) AS few
) AS counted
WHERE names.name IS NOT NULL AND names.name <> ALL (%(names)s::text[])
LIMIT %(bound)s::bigint
