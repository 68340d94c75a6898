-- Comes after the fence where some row may be locked by another session: of the runs whose row is `held`, those are `fenced` for which
-- nothing else is locked that their writes will change: rows of history that exist already, their workflow's row, signals that they take.
-- Each of these is locked here or skipped, never waited for; a run with a skipped row is tried again with the next batch.
, known AS MATERIALIZED (
    SELECT held.run, held.workflow_id, v.location
    FROM unnest(%(known_runs)s::int[], string_to_array(%(known_rows)s::text, E'\x1f')) AS v (run, location)
    JOIN held ON held.run = v.run
),
taken AS MATERIALIZED (
    SELECT held.run, held.workflow_id, v.id
    FROM unnest(%(taken_runs)s::int[], %(taken_ids)s::uuid[]) AS v (run, id)
    JOIN held ON held.run = v.run
),
altered AS MATERIALIZED (
    SELECT held.run, held.workflow_id
    FROM unnest(%(altered_runs)s::int[]) AS v (run)
    JOIN held ON held.run = v.run
),
there AS MATERIALIZED (
    SELECT found.run, count(*) AS rows
    FROM (
        SELECT known.run FROM known CROSS JOIN LATERAL (
            SELECT e.location FROM {schema}.events AS e
            WHERE e.workflow_id = known.workflow_id AND e.location = known.location OFFSET 0) AS e
        UNION ALL
        SELECT taken.run FROM taken CROSS JOIN LATERAL (
            SELECT s.id FROM {schema}.signals AS s WHERE s.id = taken.id AND s.workflow_id = taken.workflow_id OFFSET 0) AS s
        UNION ALL
        SELECT altered.run FROM altered CROSS JOIN LATERAL (
            SELECT w.id FROM {schema}.workflows AS w WHERE w.id = altered.workflow_id OFFSET 0) AS w
    ) AS found
    GROUP BY found.run
),
free_rows AS MATERIALIZED (
    SELECT known.run FROM known CROSS JOIN LATERAL (
        SELECT e.location FROM {schema}.events AS e
        WHERE e.workflow_id = known.workflow_id AND e.location = known.location FOR NO KEY UPDATE SKIP LOCKED) AS e
),
free_signals AS MATERIALIZED (
    SELECT taken.run FROM taken CROSS JOIN LATERAL (
        SELECT s.id FROM {schema}.signals AS s
        WHERE s.id = taken.id AND s.workflow_id = taken.workflow_id FOR NO KEY UPDATE SKIP LOCKED) AS s
),
free_workflows AS MATERIALIZED (
    SELECT altered.run FROM altered CROSS JOIN LATERAL (
        SELECT w.id FROM {schema}.workflows AS w WHERE w.id = altered.workflow_id FOR NO KEY UPDATE SKIP LOCKED) AS w
),
fenced AS MATERIALIZED (
    SELECT held.*
    FROM held
    LEFT JOIN there ON there.run = held.run
    LEFT JOIN (
        SELECT free.run, count(*) AS rows
        FROM (
            SELECT run FROM free_rows UNION ALL SELECT run FROM free_signals UNION ALL SELECT run FROM free_workflows
        ) AS free
        GROUP BY free.run
    ) AS free ON free.run = held.run
    WHERE coalesce(there.rows, 0) = coalesce(free.rows, 0)
)
