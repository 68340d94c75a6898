-- Deletes forgotten turns that are no longer kept: those that were still kept at the last advancement, or, when this
-- process meets the loop for the first time, whatever is there (it may have been kept by other code, longer).
WITH ranges AS MATERIALIZED (
    SELECT l.workflow_id,
           l.location || ',' || {turn(CASE WHEN l.sweep THEN 1 ELSE greatest(l.progress - l.keep, 0) + 1 END)} AS begins,
           l.location || ',' || {turn(l.turns - l.keep + 1)} AS ends
    FROM json_to_recordset(current_setting('pgflow.loops')::json) AS l (
        workflow_id uuid, location text, progress int, turns int, keep int, sweep boolean)
    WHERE l.turns > l.keep
)
DELETE FROM {schema}.forgotten_events AS f
USING ranges
WHERE f.workflow_id = ranges.workflow_id
  AND f.location >= ranges.begins COLLATE "C" AND f.location < ranges.ends COLLATE "C"
