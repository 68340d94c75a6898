-- After a lost connection: what became of the runs that this worker asked to end and no longer holds.
SELECT given.run::int, r.epoch, r.worker_id, r.status, w.status, coalesce(w.completed_at, now())
FROM unnest(%(workflow_ids)s::uuid[]) WITH ORDINALITY AS given (workflow_id, run)
LEFT JOIN {schema}.runs AS r ON r.workflow_id = given.workflow_id
LEFT JOIN {schema}.workflows AS w ON w.id = given.workflow_id
