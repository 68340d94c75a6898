-- Takes the rows of the turns that have ended since out of active history, nested loops and branches included, and
-- archives those that are kept. The bounds are stored locations, so that no row of a later turn can be among them.
WITH ranges AS MATERIALIZED (
    SELECT *
    FROM json_to_recordset(coalesce(nullif(current_setting('pgflow.loops', true), ''), '[]')::json) AS l (
        number int, workflow_id uuid, begins text, ends text, kept_from text)
),
moved AS (
    DELETE FROM {schema}.events AS e
    USING ranges
    WHERE e.workflow_id = ranges.workflow_id
      AND e.location >= ranges.begins COLLATE "C" AND e.location < ranges.ends COLLATE "C"
    RETURNING e.*, ranges.number, ranges.kept_from
),
archived AS (
    INSERT INTO {schema}.forgotten_events (
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at,
        input, output, error, wake_at, turn_state, turn_now, loop_progress, loop_state, encoding,
        turn_seq, loop_seq)
    SELECT
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at,
        input, output, error, wake_at, turn_state, turn_now, loop_progress, loop_state, encoding,
        turn_seq, loop_seq
    FROM moved
    WHERE location >= kept_from COLLATE "C"
),
-- Nor does it await any more what it found there in the place of a unique child.
unfound AS (
    DELETE FROM {schema}.finders AS f
    USING ranges
    WHERE f.finder_id = ranges.workflow_id
      AND f.location >= ranges.begins COLLATE "C" AND f.location < ranges.ends COLLATE "C"
)
SELECT moved.number - 1, count(*)::int FROM moved GROUP BY moved.number
