-- Removes some of what ended long enough ago, behind a place, in the order in which it ended.
SELECT p.at, p.last, p.id, p.stays
FROM {schema}.prune(
    %(older_than)s::interval, %(statuses)s::text[], %(name)s::text, %(queue)s::text, %(tags)s::jsonb, %(parent_id)s::uuid,
    %(dry_run)s::boolean, %(most)s::int, %(at)s::timestamptz, %(id)s::uuid, %(reason)s::text, %(actor)s::text
) AS p
