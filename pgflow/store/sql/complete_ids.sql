-- The youngest workflows (ids of version 7 are in the order of time) whose ids are in a range.
SELECT w.id, w.name
FROM {schema}.workflows AS w
WHERE w.id BETWEEN %(first)s::uuid AND %(last)s::uuid
ORDER BY w.id DESC
LIMIT %(most)s::bigint
