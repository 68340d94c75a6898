-- Workers that may be dead: their lease has expired, or the lock that their heartbeat session took is not held any more
-- (the session ended, and with it most probably the process). A missing lock means something only if the worker that looks sees its own
-- lock in the same look: behind some routers, and on a server that has just taken over, none are seen. Also owners of runs that are no workers.
-- Beside them workers of newer builds, for which it is null whether their lease has expired.
WITH RECURSIVE owners AS (
    (
        SELECT r.worker_id FROM {schema}.runs AS r
        WHERE r.status = 'running' AND r.worker_id IS NOT NULL AND %(strays)s::boolean
        ORDER BY r.worker_id LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT r.worker_id FROM {schema}.runs AS r
        WHERE r.status = 'running' AND r.worker_id > owners.worker_id
        ORDER BY r.worker_id LIMIT 1)
    FROM owners
    WHERE owners.worker_id IS NOT NULL
),
locks AS MATERIALIZED (
    SELECT (l.classid::bigint << 32) | l.objid::bigint AS key
    FROM pg_catalog.pg_locks AS l
    WHERE %(own_key)s::bigint IS NOT NULL AND l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
)
SELECT w.id, w.lock_key, w.expires_at < now() AS expired
FROM {schema}.workers AS w
WHERE w.id <> %(worker)s::bigint
  AND (w.expires_at < now()
       OR (%(own_key)s::bigint IN (SELECT locks.key FROM locks)
           AND w.lock_key IS NOT NULL AND w.lock_key NOT IN (SELECT locks.key FROM locks)))
UNION ALL
SELECT owners.worker_id, NULL, true
FROM owners
WHERE owners.worker_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM {schema}.workers AS w WHERE w.id = owners.worker_id)
UNION ALL
SELECT w.id, NULL, NULL
FROM {schema}.workers AS w
WHERE w.build_order > coalesce(%(build)s::text, '') AND w.expires_at > now()
