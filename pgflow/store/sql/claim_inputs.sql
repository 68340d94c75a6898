-- The inputs of workflows.
SELECT w.id::text, w.input::text FROM {schema}.workflows AS w WHERE w.id = ANY (%(ids)s::uuid[])
