-- Workflows of some names that may go on, the youngest first.
SELECT r.workflow_id, w.created_at
FROM {schema}.runs AS r
JOIN {schema}.workflows AS w ON w.id = r.workflow_id
WHERE r.name = ANY (%(names)s::text[] || %(rewound)s::text[]) AND r.status = ANY (%(statuses)s::text[])
  AND (%(before)s::uuid IS NULL OR (w.created_at, w.id) < (%(at)s::timestamptz, %(before)s::uuid))
ORDER BY w.created_at DESC, w.id DESC
LIMIT %(limit)s::bigint
