-- After a lost connection: the moment at which the ended rows of a batch became durable, the first attempt's or
-- this one's.
SELECT given.run, max(e.completed_at)
FROM unnest(
    %(run)s::int[],
    %(workflow_ids)s::uuid[],
    string_to_array(%(location)s::text, E'\x1f')
) AS given (run, workflow_id, location)
JOIN {schema}.events AS e ON e.workflow_id = given.workflow_id AND e.location = given.location
WHERE e.completed_at IS NOT NULL
GROUP BY given.run
