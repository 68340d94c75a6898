-- Of workflows whose crossings were skipped, those that this worker still holds: their row was only busy.
SELECT given.number::int - 1
FROM unnest(%(sender_ids)s::uuid[], %(epochs)s::int[]) WITH ORDINALITY AS given (workflow_id, epoch, number)
WHERE EXISTS (
    SELECT FROM {schema}.runs AS r
    WHERE r.workflow_id = given.workflow_id AND r.worker_id = %(worker)s::bigint AND r.epoch = given.epoch
    OFFSET 0)
