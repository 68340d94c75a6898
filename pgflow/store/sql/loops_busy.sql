-- Which of these loops cannot be advanced now, because another transaction has locked their run or their own row. Never waits, and
-- keeps no lock. A loop whose run or row is missing is not among them: advancing it will report that.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(%(workflow_ids)s::uuid[], %(locations)s::text[]) WITH ORDINALITY AS g (workflow_id, location, number)
),
runs AS MATERIALIZED (
    SELECT ordered.number
    FROM (SELECT * FROM given ORDER BY given.workflow_id OFFSET 0) AS ordered
    CROSS JOIN LATERAL (
        SELECT r.workflow_id FROM {schema}.runs AS r WHERE r.workflow_id = ordered.workflow_id FOR NO KEY UPDATE OF r SKIP LOCKED
    ) AS held
),
loops AS MATERIALIZED (
    SELECT given.number
    FROM given
    CROSS JOIN LATERAL (
        SELECT e.location FROM {schema}.events AS e
        WHERE e.workflow_id = given.workflow_id AND e.location = given.location FOR NO KEY UPDATE SKIP LOCKED
    ) AS held
)
SELECT given.number::int - 1
FROM given
WHERE (given.number NOT IN (SELECT runs.number FROM runs)
       AND EXISTS (SELECT FROM {schema}.runs AS r WHERE r.workflow_id = given.workflow_id OFFSET 0))
   OR (given.number NOT IN (SELECT loops.number FROM loops)
       AND EXISTS (SELECT FROM {schema}.events AS e WHERE e.workflow_id = given.workflow_id AND e.location = given.location OFFSET 0))
