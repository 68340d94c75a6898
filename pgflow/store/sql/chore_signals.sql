-- Removes, from some pages, the signals that were taken or dropped long enough ago, and extends the lease of the worker doing it.
-- No row comes back if that lease is lost. What another transaction has locked is left for the next time.
-- A signal always stays for a moment after it was sent: a sender that did not get the answer may be about to send it again.
-- So does one from a workflow that may not have recorded sending it yet and would send it again: a workflow that runs or waits to
-- be run, or was paused while it did (a failed one may be retried). A workflow that has slept since then has recorded it. For those that run and never sleep it
-- is assumed that after a day their worker has had the time to replay them.
-- A signal that was numbered at the moment at which its receiver ended may be marked neither taken nor dropped: it goes by the receiver's end.
WITH held AS (
    UPDATE {schema}.chores AS c SET place = %(until)s::bigint, held_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE c.name = 'signals' AND c.holder = %(holder)s::uuid AND c.held_until > now()
    RETURNING c.place
),
old AS MATERIALIZED (
    SELECT s.ctid AS at
    FROM {schema}.signals AS s
    WHERE s.ctid >= %(first)s::tid AND s.ctid < %(behind)s::tid
      AND (coalesce(s.consumed_at, s.dropped_at) <= now() - make_interval(secs => %(keep)s::float8)
           OR s.number IS NOT NULL AND s.consumed_at IS NULL AND s.dropped_at IS NULL AND EXISTS (
               SELECT FROM {schema}.workflows AS w
               WHERE w.id = s.workflow_id AND w.status IN ('completed', 'cancelled')
                 AND w.completed_at <= now() - make_interval(secs => %(keep)s::float8)))
      AND s.created_at <= now() - make_interval(secs => %(moment)s::float8)
      AND (s.problem IS NULL OR NOT EXISTS (SELECT FROM {schema}.runs AS r WHERE r.workflow_id = s.workflow_id))
      AND (s.sender_id IS NULL OR NOT EXISTS (
          SELECT FROM {schema}.runs AS r
          LEFT JOIN {schema}.workers AS k ON k.id = r.worker_id
          WHERE r.workflow_id = s.sender_id AND r.status IN ('pending', 'running', 'paused', 'failed')
            AND NOT coalesce(
                r.status = 'running' AND s.created_at < now() - interval '1 day' AND k.expires_at > now()
                AND k.started_at < now() - interval '1 hour', false)))
    FOR UPDATE OF s SKIP LOCKED
),
gone AS (
    DELETE FROM {schema}.signals AS s WHERE s.ctid = ANY (ARRAY(SELECT old.at FROM old)) RETURNING s.id
)
SELECT held.place, (SELECT count(*)::int FROM gone) FROM held
