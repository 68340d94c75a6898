-- The time, and when the next of the sleepers that this worker could take is due, as far as `horizon` seconds ahead:
-- a timer of the worker's takes the place of polling for them.
SELECT now(), (
    SELECT min(first.wake_at)
    FROM unnest(%(queues)s::text[], %(names)s::text[], %(priorities)s::int[]) AS levels (queue, name, priority)
    CROSS JOIN LATERAL (
        SELECT r.wake_at
        FROM {schema}.runs AS r
        WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
          AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
          AND r.wake_at > now() AND r.wake_at <= now() + make_interval(secs => %(horizon)s::double precision)
        ORDER BY r.wake_at
        LIMIT 1
    ) AS first)
