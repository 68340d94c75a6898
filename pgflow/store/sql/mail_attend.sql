-- The runs that this worker holds and that something was ever asked of, or sent to: it compares with what each has seen. And those
-- that it is about to pause: they may have been resumed.
SELECT r.workflow_id, r.epoch, r.mailbox, r.cancel_requested, r.pause_requested, r.timed_out
FROM {schema}.runs AS r
WHERE r.worker_id = %(worker)s::bigint AND r.status = 'running' AND (r.mailbox > 0 OR r.cancel_requested OR r.pause_requested OR r.workflow_id = ANY (%(pausing)s::uuid[]))
