-- What has been delivered to each of these workflows after a number that its run has seen.
SELECT given.workflow_id, waiting.id, waiting.number, waiting.name, waiting.body::text
FROM unnest(%(workflow_ids)s::uuid[], %(seen)s::bigint[]) AS given (workflow_id, seen)
CROSS JOIN LATERAL (
    SELECT s.id, s.number, s.name, s.body
    FROM {schema}.signals AS s
    WHERE s.workflow_id = given.workflow_id AND s.number > given.seen
      AND s.number IS NOT NULL AND s.consumed_at IS NULL AND s.dropped_at IS NULL
    ORDER BY s.number
    LIMIT %(limit)s::int
) AS waiting
ORDER BY given.workflow_id, waiting.number
