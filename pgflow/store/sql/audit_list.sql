-- What operators did, newest first. {conditions} and {limit} are filled in as in inspect_list.sql.
SELECT a.id, a.at, a.actor, a.role, a.operation, a.workflow_id, a.subject, a.reason, a.details
FROM {schema}.audit AS a
WHERE {conditions}
ORDER BY a.at DESC, a.id DESC
LIMIT {limit}
