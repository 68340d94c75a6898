-- Workflows of some names that have ended for good, the youngest first: a walk down the index for each name.
SELECT ended.id, ended.created_at
FROM unnest(%(names)s::text[]) AS asked (name)
CROSS JOIN LATERAL (
    SELECT w.id, w.created_at
    FROM {schema}.workflows AS w
    WHERE w.name = asked.name AND w.status = ANY (%(statuses)s::text[])
      AND (%(before)s::uuid IS NULL OR (w.created_at, w.id) < (%(at)s::timestamptz, %(before)s::uuid))
    ORDER BY w.created_at DESC, w.id DESC
    LIMIT %(limit)s::bigint
) AS ended
ORDER BY ended.created_at DESC, ended.id DESC
LIMIT %(limit)s::bigint
