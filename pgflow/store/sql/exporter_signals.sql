-- Signals that nobody has delivered yet, counted up to `bound`, and the seconds since the oldest was sent.
SELECT count(*)::float8, coalesce(extract(epoch FROM now() - min(waiting.created_at)), 0)::float8
FROM (
    SELECT s.created_at FROM {schema}.signals AS s
    WHERE s.number IS NULL AND s.dropped_at IS NULL
    ORDER BY s.arrival
    LIMIT %(bound)s::int
) AS waiting
