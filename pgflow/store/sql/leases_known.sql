-- Which of these numbers have a row in `workers`, locked or not.
SELECT w.id FROM {schema}.workers AS w WHERE w.id = ANY(%(ids)s::bigint[])
