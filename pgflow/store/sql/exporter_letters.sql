-- Signals that were set aside, by type, counted up to `bound`.
SELECT dead.name, count(*)::float8
FROM (
    SELECT s.name FROM {schema}.signals AS s
    WHERE s.problem IS NOT NULL
    ORDER BY s.id
    LIMIT %(bound)s::int
) AS dead
GROUP BY dead.name
ORDER BY count(*) DESC
LIMIT %(series)s::int
