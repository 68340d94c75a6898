-- After a lost connection: the moment at which the ended rows of each write became durable, by an earlier attempt
-- or by this one.
SELECT given.write, max(coalesce(e.completed_at, e.created_at))
FROM unnest(
    %(write)s::int[],
    %(workflow_ids)s::uuid[],
    string_to_array(%(location)s::text, E'\x1f')
) AS given (write, workflow_id, location)
JOIN {schema}.events AS e ON e.workflow_id = given.workflow_id AND e.location = given.location
WHERE e.status <> 'pending'
GROUP BY given.write
