-- The inputs of workflows, by id, read with claimed_evicted.sql. (Of all other runs claimed_runs.sql reads them.)
SELECT w.id::text, w.input::text FROM {schema}.workflows AS w WHERE w.id = ANY (%(ids)s::uuid[])
