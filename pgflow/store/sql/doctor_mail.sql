-- The oldest signal, and the oldest request, that nobody has delivered; and how many workers there are to do it.
(
    SELECT 'signal', s.id::text, s.workflow_id, extract(epoch FROM now() - s.created_at)::float8,
        (SELECT count(*)::int FROM {schema}.workers AS w WHERE w.expires_at > now())
    FROM {schema}.signals AS s
    WHERE s.number IS NULL AND s.dropped_at IS NULL
    ORDER BY s.arrival LIMIT 1
)
UNION ALL
(
    SELECT CASE WHEN q.kind = 'cancel' THEN 'request to cancel' ELSE 'end of a child' END, q.id::text, q.workflow_id,
        extract(epoch FROM now() - q.created_at)::float8,
        (SELECT count(*)::int FROM {schema}.workers AS w WHERE w.expires_at > now())
    FROM {schema}.requests AS q
    ORDER BY q.id LIMIT 1
)
