-- A worker goes on under another number: its registration, and the runs that it has in memory. Others that it owns were taken
-- by a claim whose answer was lost: nobody has begun them, and they are free again.
WITH gone AS (
    DELETE FROM {schema}.workers AS w WHERE w.id = ANY(%(numbers)s::bigint[])
    RETURNING w.host, w.pid, w.lock_key, w.version, w.queues, w.process, w.build, w.build_order, w.names, w.concurrency, w.definitions, w.started_at, w.heartbeat_at, w.expires_at
),
registered AS (
    INSERT INTO {schema}.workers (
        id, host, pid, lock_key, version, queues, process, build, build_order, names, concurrency, definitions, started_at, heartbeat_at, expires_at)
    OVERRIDING SYSTEM VALUE
    SELECT %(number)s::bigint, gone.host, gone.pid, gone.lock_key, gone.version, gone.queues, gone.process, gone.build,
           gone.build_order, gone.names, gone.concurrency, gone.definitions, gone.started_at, gone.heartbeat_at, gone.expires_at
    FROM gone
    LIMIT 1
),
moved AS (
    UPDATE {schema}.runs AS r SET worker_id = %(number)s::bigint WHERE r.workflow_id = ANY(%(kept)s::uuid[])
)
UPDATE {schema}.runs AS r SET
    status = 'pending', wake_at = now(), waiting_for = NULL, worker_id = NULL, claim = NULL, last_worker = NULL
WHERE r.workflow_id = ANY(%(unknown)s::uuid[])
