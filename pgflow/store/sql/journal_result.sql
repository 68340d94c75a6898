-- What the worker needs to know: the time, and if not every run was written for, which ones were, and which of the
-- others are still this worker's, as far as this statement's snapshot tells (then their row was only busy). And whether any of
-- those written for has waiters, who were told of its end if this was it.
SELECT
    now() AS at,
    (SELECT count(*) FROM fenced) AS fenced,
    CASE WHEN (SELECT count(*) FROM fenced) < (SELECT count(*) FROM asked)
        THEN ARRAY(SELECT run::int FROM fenced) END AS fenced_runs,
    CASE WHEN (SELECT count(*) FROM fenced) < (SELECT count(*) FROM asked)
        THEN ARRAY(
            SELECT asked.run::int
            FROM asked
            WHERE EXISTS (
                SELECT FROM {schema}.runs AS r
                WHERE r.workflow_id = asked.workflow_id AND r.worker_id = %(worker)s::bigint AND r.epoch = asked.epoch
                OFFSET 0)
              AND NOT EXISTS (SELECT FROM fenced WHERE fenced.run = asked.run)) END AS busy_runs,
    (SELECT bool_or(fenced.waiters IS NOT NULL) FROM fenced) AS awaited
