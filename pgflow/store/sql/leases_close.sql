-- Closes a worker that signs off: a claim of its own that is still in flight ends first, and no later one finds this row.
SELECT w.id FROM {schema}.workers AS w WHERE w.id = ANY(%(ids)s::bigint[]) ORDER BY w.id FOR UPDATE
