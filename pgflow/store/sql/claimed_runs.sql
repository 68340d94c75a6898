-- The rows of the runs that a claim took, for epochs above `beyond`: runs at their first epoch come with the claim. A statement of its
-- own, so that its snapshot is younger than the claim's locks.
-- A run that this worker gave up itself may still be in its memory: then neither its input nor its history is read again.
SELECT
    r.workflow_id, r.workflow_id::text, w.name, r.queue, r.epoch,
    CASE WHEN r.last_worker = r.worker_id THEN '{}' ELSE w.input::text END,
    coalesce(w.tags_given, w.tags), w.created_at, w.parent_id, coalesce(w.seed, w.id), r.mailbox, r.cancel_requested,
    w.state::text, CASE WHEN w.tags_given IS NOT NULL THEN w.tags END,
    coalesce(r.last_worker = r.worker_id, false), w.cancellations,
    w.rewinds, r.timed_out, cardinality(r.suspicions), r.crashes, r.suspected_at
FROM {schema}.runs AS r
JOIN {schema}.workflows AS w ON w.id = r.workflow_id
WHERE r.worker_id = %(worker)s::bigint AND r.claim = %(claim)s::bigint AND r.status = 'running' AND r.epoch > %(beyond)s::int
