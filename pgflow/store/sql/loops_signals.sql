-- Signals that these workflows have consumed are kept for a day, so that one that is sent again meanwhile is known; then they
-- go with the turns, so that a workflow can listen in a loop for ever.
DELETE FROM {schema}.signals AS s
WHERE s.id = ANY (ARRAY(
    SELECT old.id
    FROM json_to_recordset(coalesce(nullif(current_setting('pgflow.loops', true), ''), '[]')::json) AS l (workflow_id uuid)
    CROSS JOIN LATERAL (
        SELECT t.id
        FROM {schema}.signals AS t
        WHERE t.workflow_id = l.workflow_id AND t.consumed_at < now() - interval '1 day'
        ORDER BY t.consumed_at
        LIMIT 1000
    ) AS old))
