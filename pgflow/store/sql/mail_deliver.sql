-- Delivers what was sent to workflows: signals get the next numbers of their receiver's mailbox, in the order in which they
-- arrived; a request to cancel becomes a flag; the end of a child gets a number as well. A run that sleeps on any of this is
-- woken. All of that happens under the receiver's row lock; receivers that another session has locked are left for later, and
-- what was sent to workflows that have ended is marked so.
-- Only what this statement has numbered, or taken under a lock, counts, never what it has merely seen: its snapshot may be older
-- than the locks, and another session may have delivered the same in between. So numbers may have gaps; only their order matters.
-- Signals are reached by their ids, one by one (num_nonnulls hides the index of undelivered ones), and sets are hashed (IN ...
-- IS NOT TRUE): statistics say that hardly anything is ever undelivered, and a plan based on them compares all with all.
WITH mail AS MATERIALIZED (
    SELECT s.id, s.workflow_id, s.name, s.arrival
    FROM {schema}.signals AS s
    WHERE s.number IS NULL AND s.dropped_at IS NULL AND s.arrival > %(after_signal)s::bigint
      AND s.workflow_id <> ALL (%(passed_over)s::uuid[])
    ORDER BY s.arrival
    LIMIT %(limit)s::int
),
asks AS MATERIALIZED (
    SELECT q.id, q.workflow_id, q.kind
    FROM {schema}.requests AS q
    WHERE q.id > %(after_request)s::bigint
      AND q.workflow_id <> ALL (%(passed_over)s::uuid[])
    ORDER BY q.id
    LIMIT %(limit)s::int
),
receivers AS MATERIALIZED (
    SELECT ARRAY(SELECT mail.workflow_id FROM mail UNION SELECT asks.workflow_id FROM asks) AS ids
),
present AS MATERIALIZED (
    SELECT r.workflow_id FROM {schema}.runs AS r WHERE r.workflow_id = ANY ((SELECT ids FROM receivers)::uuid[])
),
locked AS MATERIALIZED (
    SELECT r.workflow_id, r.mailbox
    FROM {schema}.runs AS r
    WHERE r.workflow_id = ANY ((SELECT ids FROM receivers)::uuid[])
      -- One whose numbers have come to an end is left like one that is locked: it must not stop all deliveries.
      AND r.mailbox < 9e18::bigint
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE SKIP LOCKED
),
next AS MATERIALIZED (
    SELECT mail.id, locked.mailbox + row_number() OVER (PARTITION BY mail.workflow_id ORDER BY mail.arrival) AS number
    FROM mail
    JOIN locked ON locked.workflow_id = mail.workflow_id
),
numbered AS (
    UPDATE {schema}.signals AS s SET number = next.number
    FROM next
    WHERE s.id = next.id AND num_nonnulls(s.number, s.dropped_at) = 0
    RETURNING s.workflow_id, s.id, s.number, s.name, s.body::text AS body
),
orphans AS MATERIALIZED (
    SELECT s.id
    FROM {schema}.signals AS s
    JOIN mail ON mail.id = s.id
    WHERE num_nonnulls(s.number, s.dropped_at) = 0 AND (mail.workflow_id IN (SELECT present.workflow_id FROM present)) IS NOT TRUE
    FOR NO KEY UPDATE OF s SKIP LOCKED
),
returned AS (
    UPDATE {schema}.signals AS s SET dropped_at = now() FROM orphans WHERE s.id = orphans.id
),
done AS MATERIALIZED (
    SELECT q.id, q.workflow_id, q.kind
    FROM {schema}.requests AS q
    JOIN asks ON asks.id = q.id
    WHERE EXISTS (SELECT FROM locked WHERE locked.workflow_id = asks.workflow_id)
       OR NOT EXISTS (SELECT FROM present WHERE present.workflow_id = asks.workflow_id)
    FOR UPDATE OF q SKIP LOCKED
),
answered AS (
    DELETE FROM {schema}.requests AS q USING done WHERE q.id = done.id
),
news AS MATERIALIZED (
    SELECT locked.workflow_id, coalesce(letters.last - locked.mailbox, 0) + coalesce(wants.child::int, 0) AS count, letters.names,
           coalesce(wants.child, false) AS child, coalesce(wants.cancel, false) AS cancel
    FROM locked
    LEFT JOIN (
        SELECT numbered.workflow_id, max(numbered.number) AS last, array_agg(numbered.name) AS names
        FROM numbered GROUP BY numbered.workflow_id
    ) AS letters ON letters.workflow_id = locked.workflow_id
    LEFT JOIN (
        SELECT done.workflow_id, bool_or(done.kind = 'child') AS child, bool_or(done.kind = 'cancel') AS cancel
        FROM done GROUP BY done.workflow_id
    ) AS wants ON wants.workflow_id = locked.workflow_id
    WHERE letters.workflow_id IS NOT NULL OR wants.workflow_id IS NOT NULL
),
told AS (
    UPDATE {schema}.runs AS r SET
        mailbox = r.mailbox + news.count,
        cancel_requested = r.cancel_requested OR (news.cancel AND r.status <> 'failed'),
        pause_requested = r.pause_requested AND NOT news.cancel,
        -- Nobody has ever had it: it is ended in SQL, by whoever sees to deadlines next (deadlines_pass.sql).
        deadline = CASE WHEN news.cancel AND r.epoch = 0 AND r.status IN ('pending', 'paused') THEN now() ELSE r.deadline END,
        status = CASE
            WHEN r.status IN ('sleeping', 'paused') AND news.cancel THEN 'pending'
            WHEN r.status = 'sleeping' AND (r.waiting_for && news.names OR (r.awaits_children AND news.child)) THEN 'pending'
            ELSE r.status END,
        wake_at = CASE
            WHEN r.status IN ('sleeping', 'paused', 'pending') AND news.cancel THEN now()
            WHEN r.status = 'sleeping' AND (r.waiting_for && news.names OR (r.awaits_children AND news.child)) THEN now()
            ELSE r.wake_at END
    FROM news
    WHERE r.workflow_id = news.workflow_id AND EXISTS (SELECT FROM locked)
    RETURNING r.workflow_id, r.queue, r.status, r.worker_id, r.epoch, r.mailbox, r.cancel_requested, r.pause_requested, r.timed_out, news.count
)
SELECT
    page.signals, page.last_signal, page.requests, page.last_request, page.passed_over,
    told.workflow_id, told.queue, told.status, told.worker_id, told.epoch, told.mailbox - told.count, told.mailbox,
    told.cancel_requested, told.pause_requested, told.timed_out, numbered.id, numbered.number, numbered.name, numbered.body
FROM (
    SELECT (SELECT count(*)::int FROM mail) AS signals, (SELECT max(arrival) FROM mail) AS last_signal,
           (SELECT count(*)::int FROM asks) AS requests, (SELECT max(id) FROM asks) AS last_request,
           ARRAY(SELECT present.workflow_id FROM present EXCEPT SELECT locked.workflow_id FROM locked) AS passed_over
) AS page
LEFT JOIN told ON true
LEFT JOIN numbered ON numbered.workflow_id = told.workflow_id AND told.status = 'running' AND told.worker_id = %(worker)s::bigint
ORDER BY told.workflow_id, numbered.number
