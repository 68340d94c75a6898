-- Signals that listens have taken, in the transaction of the listens' rows: taken once, whatever crashes.
, consumed AS (
    UPDATE {schema}.signals AS s SET consumed_at = now(), location = v.location
    FROM unnest(
        %(consumer)s::int[], %(consumed)s::uuid[], string_to_array(%(consumed_at)s::text, E'\x1f')
    ) AS v (run, id, location)
    JOIN fenced ON fenced.run = v.run
    WHERE s.id = v.id AND s.workflow_id = fenced.workflow_id
)
