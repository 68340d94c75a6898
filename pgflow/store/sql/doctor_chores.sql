-- Upkeep that has been due for `late` seconds though a worker has been there for as long.
SELECT c.name, extract(epoch FROM now() - greatest(c.next_at, c.held_until))::float8
FROM {schema}.chores AS c
WHERE greatest(c.next_at, c.held_until) < now() - make_interval(secs => %(late)s::float8)
  AND EXISTS (SELECT FROM {schema}.workers AS w WHERE w.expires_at > now() AND w.started_at < now() - make_interval(secs => %(late)s::float8))
ORDER BY 2 DESC
LIMIT 20
