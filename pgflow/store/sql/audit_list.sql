-- What operators did, the last first. {conditions}: one for each thing that is asked for; {limit} is a number of its own right: as in the list
-- of workflows.
SELECT a.id, a.at, a.actor, a.role, a.operation, a.workflow_id, a.subject, a.reason, a.details
FROM {schema}.audit AS a
WHERE {conditions}
ORDER BY a.at DESC, a.id DESC
LIMIT {limit}
