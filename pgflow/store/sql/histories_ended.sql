-- Workflows of some names that have ended for good, the youngest first: a walk down the index for each name.
SELECT ended.id
FROM unnest(%(names)s::text[]) AS asked (name)
CROSS JOIN LATERAL (
    SELECT w.id
    FROM {schema}.workflows AS w
    WHERE w.name = asked.name AND w.status = ANY (%(statuses)s::text[])
      AND (%(before)s::uuid IS NULL OR w.id < %(before)s::uuid)
    ORDER BY w.id DESC
    LIMIT %(limit)s::bigint
) AS ended
ORDER BY ended.id DESC
LIMIT %(limit)s::bigint
