-- Removes some of the audit rows that are old enough, oldest first, and extends the lease of the worker doing it. No row comes
-- back if that lease is lost.
WITH held AS (
    UPDATE {schema}.chores AS c SET held_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE c.name = 'audit' AND c.holder = %(holder)s::uuid AND c.held_until > now()
    RETURNING c.name
),
gone AS (
    DELETE FROM {schema}.audit AS a
    WHERE EXISTS (SELECT FROM held) AND a.id = ANY (ARRAY(
        SELECT o.id FROM {schema}.audit AS o
        WHERE o.at <= now() - make_interval(secs => %(keep)s::float8)
        ORDER BY o.at, o.id LIMIT %(rows)s::int))
    RETURNING a.id
)
SELECT (SELECT count(*)::int FROM gone) FROM held
