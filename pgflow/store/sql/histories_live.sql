-- Workflows of some names that may go on, the youngest first.
SELECT r.workflow_id
FROM {schema}.runs AS r
WHERE r.name = ANY (%(names)s::text[]) AND r.status = ANY (%(statuses)s::text[])
  AND (%(before)s::uuid IS NULL OR r.workflow_id < %(before)s::uuid)
ORDER BY r.workflow_id DESC
LIMIT %(limit)s::bigint
