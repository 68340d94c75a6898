-- Removes some of the workflows of a name that have been kept long enough, those that ended first first, behind a place, and extends the lease of
-- the worker doing it. No row comes back if that lease is lost; else the place at which to go on, for how many seconds what stands there has
-- been due, how many were found, how many of them removed, and how many are removed in pieces. Nothing is found once the rule has become longer.
WITH held AS (
    UPDATE {schema}.chores AS c SET held_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE c.name = 'retention' AND c.holder = %(holder)s::uuid AND c.held_until > now()
    RETURNING c.name
),
due AS MATERIALIZED (
    (
        SELECT e.workflow_id AS id, e.ended_at AS at, e.ended_at AS since
        FROM {schema}.ends AS e
        WHERE NOT %(failed)s::boolean AND e.name = %(name)s::text AND e.ended_at <= now() - make_interval(secs => %(keep)s::float8)
          AND (e.ended_at, e.workflow_id) > (%(at)s::timestamptz, %(id)s::uuid)
          AND (SELECT {schema}.retained_for(%(name)s::text, 'keep')) <= %(keep)s::float8
        ORDER BY e.ended_at, e.workflow_id LIMIT %(rows)s::int
    )
    UNION ALL
    (
        SELECT r.workflow_id, r.created_at, r.failed_at
        FROM {schema}.runs AS r
        WHERE %(failed)s::boolean AND r.name = %(name)s::text AND r.status = 'failed'
          AND r.created_at <= now() - make_interval(secs => %(keep)s::float8) AND r.failed_at <= now() - make_interval(secs => %(keep)s::float8)
          AND (r.created_at, r.workflow_id) > (%(at)s::timestamptz, %(id)s::uuid)
          AND (SELECT {schema}.retained_for(%(name)s::text, 'failed')) <= %(keep)s::float8
        ORDER BY r.created_at, r.workflow_id LIMIT %(rows)s::int
    )
),
place AS (
    SELECT due.at, due.id, extract(epoch FROM now() - due.since)::float8 - %(keep)s::float8 AS late
    FROM due ORDER BY due.at DESC, due.id DESC LIMIT 1
)
SELECT place.at::text, place.id, place.late, coalesce(tried.found, 0), coalesce(tried.removed, 0), coalesce(tried.pieces, 0)
FROM held
LEFT JOIN place ON true
LEFT JOIN LATERAL (
    SELECT count(*)::int AS found, (count(*) FILTER (WHERE r.stays IS NULL))::int AS removed, (count(*) FILTER (WHERE r.stays = 'removing'))::int AS pieces
    FROM {schema}.remove_workflows(
        ARRAY(SELECT due.id FROM due WHERE held.name = 'retention'), make_interval(secs => %(keep)s::float8)) AS r
) AS tried ON true
