-- Frees the runs of dead workers for the next claim; those that were to be paused are paused. A statement of its own, after
-- the workers' rows are locked, so that its snapshot holds the last claim of each. What a transaction of the dead still has
-- locked is skipped; the next look finds it.
-- All runs that a process held are suspected of its death (leases_count.sql). If it held a single one, that one is to blame,
-- provided that the process is `gone`, which means that its session ended while the server was up. A process that lives comes
-- back soon and withdraws this (leases_return.sql), so a run that was suspected before can be claimed only after `confirm`. A
-- lease that ran out (not gone) proves nothing until another such death follows.
-- Runs that are handed back (`gone` is null) are not suspected of anything.
WITH dead AS MATERIALIZED (
    SELECT given.id, given.gone AND w.heartbeat_at > pg_postmaster_start_time() AS gone,
           given.gone IS NOT NULL AND coalesce(w.held = 1, false) AS alone, given.gone IS NOT NULL AND w.id IS NOT NULL AS died
    FROM unnest(%(ids)s::bigint[], %(gone)s::boolean[]) AS given (id, gone)
    LEFT JOIN {schema}.workers AS w ON w.id = given.id
),
held AS MATERIALIZED (
    SELECT r.workflow_id, dead.id AS worker, coalesce(dead.gone, false) AS gone, dead.alone, dead.died
    FROM dead
    JOIN {schema}.runs AS r ON r.worker_id = dead.id AND r.status = 'running'
    ORDER BY r.workflow_id
    LIMIT %(limit)s::int
    FOR NO KEY UPDATE OF r SKIP LOCKED
),
freed AS (
    UPDATE {schema}.runs AS r SET
        status = CASE WHEN r.pause_requested AND NOT r.cancel_requested THEN 'paused' ELSE 'pending' END,
        wake_at = CASE WHEN r.pause_requested AND NOT r.cancel_requested THEN NULL
            WHEN held.alone AND r.suspicions IS NOT NULL THEN now() + %(confirm)s::interval ELSE now() END,
        pause_requested = r.pause_requested AND r.cancel_requested, waiting_for = NULL, worker_id = NULL, claim = NULL,
        last_worker = NULL,
        suspicions = CASE WHEN held.died THEN r.suspicions[greatest(cardinality(r.suspicions) - 18, 1):] || held.worker ELSE r.suspicions END,
        suspected_at = CASE WHEN held.died THEN now() ELSE r.suspected_at END,
        crashes = CASE WHEN held.alone
            THEN nullif(array_remove(r.crashes || r.presumed || CASE WHEN held.gone THEN held.worker END, NULL), '{}')
            ELSE r.crashes END,
        presumed = CASE WHEN NOT held.alone THEN r.presumed WHEN NOT held.gone THEN held.worker END
    FROM held
    WHERE r.workflow_id = held.workflow_id
    RETURNING r.queue
)
SELECT count(*)::int, coalesce(array_agg(DISTINCT freed.queue), '{}') FROM freed
