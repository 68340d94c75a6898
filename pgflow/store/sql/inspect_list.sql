-- Workflows by what they are called and how they stand, the youngest first (ids are in order of time).
SELECT
    o.id, o.name, o.status, o.queue, o.priority, o.tags, o.input::text, o.output::text, o.error::text,
    o.created_at, o.completed_at, o.wake_at, o.waiting_for, o.worker_id, o.parent_id
FROM {schema}.workflow_overview AS o
WHERE (%(name)s::text IS NULL OR o.name = %(name)s::text)
  AND (%(status)s::text IS NULL OR o.status = %(status)s::text)
  AND (%(tags)s::jsonb IS NULL OR o.tags @> %(tags)s::jsonb)
  AND (%(queue)s::text IS NULL OR o.queue = %(queue)s::text)
  AND (%(parent_id)s::uuid IS NULL OR o.parent_id = %(parent_id)s::uuid)
  AND (%(before)s::uuid IS NULL OR o.id < %(before)s::uuid)
ORDER BY o.id DESC
LIMIT %(limit)s::int
