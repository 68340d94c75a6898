-- Signals that people should know of, each counted up to `bound`: dead letters by type, and those that nobody has delivered yet
-- (no type), with the age of the oldest.
(
    SELECT dead.name, count(*)::float8, extract(epoch FROM now() - min(dead.created_at))::float8
    FROM (
        SELECT s.name, s.created_at FROM {schema}.signals AS s
        WHERE s.problem IS NOT NULL
        ORDER BY s.id
        LIMIT %(bound)s::int
    ) AS dead
    GROUP BY dead.name
    ORDER BY count(*) DESC
    LIMIT %(series)s::int
)
UNION ALL
SELECT NULL, count(*)::float8, coalesce(extract(epoch FROM now() - min(waiting.created_at)), 0)::float8
FROM (
    SELECT s.created_at FROM {schema}.signals AS s
    WHERE s.number IS NULL AND s.dropped_at IS NULL
    ORDER BY s.arrival
    LIMIT %(bound)s::int
) AS waiting
