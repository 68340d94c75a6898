-- Who works, and whether what one worker does for all gets done. Each line: what, of which, how much.
(
    SELECT 'live' AS what, served.queue AS of_which, count(*)::float8 AS much
    FROM {schema}.workers AS w
    CROSS JOIN LATERAL unnest(w.queues) AS served (queue)
    WHERE w.expires_at > now()
    GROUP BY served.queue
    ORDER BY count(*) DESC
    LIMIT %(series)s::int
)
UNION ALL
SELECT 'expired', NULL, count(*)::float8 FROM {schema}.workers AS w WHERE w.expires_at <= now()
UNION ALL
SELECT 'suspected', NULL, count(*)::float8
FROM (SELECT FROM {schema}.runs AS r WHERE r.suspicions IS NOT NULL LIMIT %(bound)s::int) AS suspected
UNION ALL
SELECT 'chore', c.name, greatest(0, extract(epoch FROM now() - greatest(c.next_at, c.held_until)))::float8 FROM {schema}.chores AS c
UNION ALL
SELECT 'schema', NULL, i.version::float8 FROM {schema}.schema_info AS i
