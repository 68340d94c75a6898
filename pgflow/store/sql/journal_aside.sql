-- Signals whose bodies do not fit the type that is listened for: out of the mailbox, not consumed, left to operators (dead letters).
, set_aside AS (
    UPDATE {schema}.signals AS s SET dropped_at = now(), problem = v.problem
    FROM unnest(%(aside_run)s::int[], %(aside)s::uuid[], %(problems)s::text[]) AS v (run, id, problem)
    JOIN fenced ON fenced.run = v.run
    WHERE s.id = v.id AND s.workflow_id = fenced.workflow_id AND num_nonnulls(s.consumed_at, s.dropped_at) = 0
)
