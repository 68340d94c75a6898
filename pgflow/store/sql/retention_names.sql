-- Which names have workflows that are not kept for ever, and the seconds until the first of them is due: a hop along an index for each name.
-- Of failed ones it is not known when the first has failed, but not before it was dispatched.
WITH RECURSIVE ended (name) AS (
    (SELECT e.name FROM {schema}.ends AS e ORDER BY e.name LIMIT 1)
    UNION ALL
    SELECT (SELECT e.name FROM {schema}.ends AS e WHERE e.name > ended.name ORDER BY e.name LIMIT 1)
    FROM ended WHERE ended.name IS NOT NULL
),
failed (name) AS (
    (SELECT r.name FROM {schema}.runs AS r WHERE r.status IN ('paused', 'failed') ORDER BY r.name LIMIT 1)
    UNION ALL
    SELECT (SELECT r.name FROM {schema}.runs AS r WHERE r.status IN ('paused', 'failed') AND r.name > failed.name ORDER BY r.name LIMIT 1)
    FROM failed WHERE failed.name IS NOT NULL
),
ruled AS (
    SELECT false AS failed, ended.name, {schema}.retained_for(ended.name, 'keep') AS keep FROM ended WHERE ended.name IS NOT NULL
    UNION ALL
    SELECT true, failed.name, {schema}.retained_for(failed.name, 'failed') FROM failed WHERE failed.name IS NOT NULL
)
SELECT ruled.failed, ruled.name, ruled.keep, extract(epoch FROM first.at - now())::float8 + ruled.keep
FROM ruled
CROSS JOIN LATERAL (
    (SELECT e.ended_at AS at FROM {schema}.ends AS e WHERE NOT ruled.failed AND e.name = ruled.name ORDER BY e.ended_at LIMIT 1)
    UNION ALL
    (SELECT r.created_at FROM {schema}.runs AS r WHERE ruled.failed AND r.name = ruled.name AND r.status = 'failed' ORDER BY r.created_at LIMIT 1)
) AS first
WHERE ruled.keep < 'infinity'
