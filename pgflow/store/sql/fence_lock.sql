-- A worker moves to another number: its own row first. A claim of its own that is still in flight ends before this, and no
-- later one finds the row.
SELECT w.id FROM {schema}.workers AS w WHERE w.id = ANY(%(numbers)s::bigint[]) AND w.expires_at > now() ORDER BY w.id FOR UPDATE
