-- Runs that stay: asleep, handed back, paused or failed. Left out where all have ended, since this part of the statement costs the most to start.
-- Going to sleep is decided here on the columns of the locked row: a signal, the end of a child or a request to cancel
-- that arrived in between makes the run pending at once, so that no wake-up is lost.
-- Progress (l) clears the suspicions of a run; deaths that have been counted as attempts (k) are not counted again.
, stopped AS (
    UPDATE {schema}.runs AS r SET
        status = CASE
            WHEN changed.outcome = 'kept' THEN r.status
            WHEN changed.outcome = 'failed' THEN 'failed'
            WHEN r.pause_requested AND NOT (r.cancel_requested AND changed.flags NOT LIKE '%%c%%') THEN 'paused'
            WHEN changed.outcome = 'released' OR r.mailbox > changed.mailbox
                OR (r.cancel_requested AND changed.flags NOT LIKE '%%c%%') THEN 'pending'
            ELSE 'sleeping' END,
        wake_at = CASE
            WHEN changed.outcome IN ('kept', 'failed') THEN NULL
            WHEN r.pause_requested AND NOT (r.cancel_requested AND changed.flags NOT LIKE '%%c%%') THEN NULL
            WHEN changed.outcome = 'released' THEN coalesce(changed.wake_at, now())
            WHEN r.mailbox > changed.mailbox OR (r.cancel_requested AND changed.flags NOT LIKE '%%c%%') THEN now()
            WHEN changed.wake_at IS NOT NULL THEN greatest(changed.wake_at, now()) END,
        waiting_for = string_to_array(changed.waiting_for, E'\x1e'),
        awaits_children = changed.flags LIKE '%%a%%',
        cancel_requested = r.cancel_requested AND changed.flags NOT LIKE '%%c%%',
        pause_requested = r.pause_requested AND (changed.outcome = 'kept'
            OR (changed.outcome <> 'failed' AND r.cancel_requested AND changed.flags NOT LIKE '%%c%%')),
        unique_key = CASE WHEN changed.outcome <> 'failed' THEN r.unique_key END,
        freed_key = CASE WHEN changed.outcome = 'failed' THEN r.unique_key END,
        reset = string_to_array(changed.reset, E'\x1e'),
        fork_before = changed.fork_before,
        suspicions = CASE WHEN changed.outcome <> 'failed' AND changed.flags NOT LIKE '%%l%%' THEN r.suspicions END,
        crashes = CASE WHEN changed.outcome <> 'failed' AND changed.flags !~ '[kl]' THEN r.crashes END,
        presumed = CASE WHEN changed.outcome <> 'failed' AND changed.flags NOT LIKE '%%l%%' THEN r.presumed END,
        last_worker = CASE WHEN changed.outcome = 'sleeping' THEN r.worker_id END,
        worker_id = CASE WHEN changed.outcome = 'kept' THEN r.worker_id END,
        claim = CASE WHEN changed.outcome = 'kept' THEN r.claim END
    FROM changed
    WHERE r.workflow_id = changed.workflow_id AND NOT changed.ends
      AND EXISTS (SELECT FROM changed AS staying WHERE NOT staying.ends)
      AND (changed.outcome <> 'kept' OR changed.flags ~ '[ckl]')
)
