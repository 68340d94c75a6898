-- Which of these have a row as workers, locked or not.
SELECT w.id FROM {schema}.workers AS w WHERE w.id = ANY(%(ids)s::bigint[])
