-- Workers that are gone, or stand still: their lease has ended, or the session that held their lock has (as this server sees it), or half of their
-- lease is over without a heartbeat. With whether that session is there (null: not known), what they hold, and how many others live.
WITH locks AS MATERIALIZED (
    SELECT (l.classid::bigint << 32) | l.objid::bigint AS key
    FROM pg_catalog.pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND NOT pg_is_in_recovery()
),
seen AS (
    SELECT w.id, w.host, w.pid, w.heartbeat_at, w.expires_at, clock_timestamp() - w.heartbeat_at AS silent,
        CASE WHEN w.lock_key IS NOT NULL AND NOT pg_is_in_recovery() THEN w.lock_key IN (SELECT locks.key FROM locks) END AS there
    FROM {schema}.workers AS w
)
SELECT s.id, s.host, s.pid, extract(epoch FROM s.silent)::float8, s.expires_at <= now(), s.there,
    (SELECT count(*)::int FROM (SELECT FROM {schema}.runs AS r WHERE r.status = 'running' AND r.worker_id = s.id LIMIT 10000) AS held),
    (SELECT count(*)::int FROM {schema}.workers AS w WHERE w.expires_at > now() AND w.id <> s.id)
FROM seen AS s
WHERE s.expires_at <= now() - make_interval(secs => %(grace)s::float8)
   OR (NOT s.there AND s.silent > make_interval(secs => %(grace)s::float8))
   OR s.silent > greatest((s.expires_at - s.heartbeat_at) * 0.75, make_interval(secs => %(grace)s::float8))
ORDER BY s.heartbeat_at
LIMIT 20
