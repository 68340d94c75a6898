-- The workers that have a row, those of the newest build first: what they are, what they serve, and how much they hold.
SELECT
    w.id, w.host, w.pid, w.version, w.build, w.queues, w.names, w.started_at, w.heartbeat_at,
    extract(epoch FROM now() - w.heartbeat_at)::float8, w.expires_at > now(),
    (SELECT count(*)::int FROM {schema}.runs AS r WHERE r.worker_id = w.id AND r.status = 'running'), w.concurrency
FROM {schema}.workers AS w
WHERE %(queue)s::text IS NULL OR %(queue)s::text = ANY (w.queues)
ORDER BY w.build_order DESC NULLS LAST, w.started_at, w.id
LIMIT %(limit)s::int
