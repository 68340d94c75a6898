-- Looks for priorities that this worker has not met: one index probe between each two neighbours of those it knows,
-- so that what it costs depends neither on how many runs there are nor on dead entries of the known levels.
SELECT gaps.queue, gaps.name, found.priority
FROM unnest(%(queues)s::text[], %(names)s::text[], %(above)s::bigint[], %(below)s::bigint[]) AS gaps (queue, name, above, below)
CROSS JOIN LATERAL (
    SELECT r.priority
    FROM {schema}.runs AS r
    WHERE r.queue = gaps.queue AND r.name = gaps.name
      AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
      AND r.priority > gaps.above AND r.priority < gaps.below
    ORDER BY r.priority DESC
    LIMIT 1
) AS found
