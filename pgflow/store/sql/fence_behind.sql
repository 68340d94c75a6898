-- Whether the database lacks anything of what it had acknowledged to a worker, and what: of each run in its memory the claim, the
-- row that was committed last, the news that was delivered; and the last things that it did to others. What was committed
-- last is lost first, so if the last is there, everything is. Runs that the worker no longer holds are not looked at.
SELECT CASE
    WHEN w.id IS NULL THEN format('workflow %%s', given.workflow_id)
    WHEN r.epoch < given.epoch THEN format('the claim of workflow %%s at epoch %%s', given.workflow_id, given.epoch)
    WHEN r.mailbox < given.mailbox THEN format('news for workflow %%s', given.workflow_id)
    ELSE format('the row at %%s of workflow %%s', {schema}.display_location(given.location), given.workflow_id) END
FROM unnest(
    %(workflow_ids)s::uuid[], %(epochs)s::int[], %(mailboxes)s::bigint[], %(locations)s::text[], %(ended)s::boolean[]
) AS given (workflow_id, epoch, mailbox, location, ended)
LEFT JOIN LATERAL (SELECT * FROM {schema}.workflows AS w WHERE w.id = given.workflow_id LIMIT 1) AS w ON true
LEFT JOIN LATERAL (SELECT * FROM {schema}.runs AS r WHERE r.workflow_id = given.workflow_id LIMIT 1) AS r ON true
WHERE w.id IS NULL
   OR r.epoch < given.epoch
   OR (r.worker_id = ANY(%(numbers)s::bigint[]) AND r.epoch = given.epoch AND (
        r.mailbox < given.mailbox
        OR (given.location IS NOT NULL AND NOT EXISTS (
            SELECT FROM {schema}.events AS e
            WHERE e.workflow_id = given.workflow_id AND e.location = given.location
              AND (e.status <> 'pending' OR NOT given.ended)
            OFFSET 0))))
UNION ALL
SELECT format('signal %%s', %(signal)s::uuid)
WHERE %(signal)s::uuid IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.signals AS s WHERE s.id = %(signal)s::uuid)
UNION ALL
SELECT format('child %%s', %(child)s::uuid)
WHERE %(child)s::uuid IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.workflows AS c WHERE c.id = %(child)s::uuid)
LIMIT 1
