-- Deletes forgotten turns that are no longer kept: those that were still kept at the last advancement, or, when this
-- process meets the loop for the first time, whatever is there (it may have been kept by other code, longer).
DELETE FROM {schema}.forgotten_events AS f
USING json_to_recordset(coalesce(nullif(current_setting('pgflow.loops', true), ''), '[]')::json) AS l (
    workflow_id uuid, kept_before text, kept_from text)
WHERE f.workflow_id = l.workflow_id
  AND f.location >= l.kept_before COLLATE "C" AND f.location < l.kept_from COLLATE "C"
