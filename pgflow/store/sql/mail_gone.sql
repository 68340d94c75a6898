-- Of these workflows those that have no run any more: somebody has ended them.
SELECT given.id
FROM unnest(%(workflow_ids)s::uuid[]) AS given (id)
WHERE NOT EXISTS (SELECT FROM {schema}.runs AS r WHERE r.workflow_id = given.id OFFSET 0)
