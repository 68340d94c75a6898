CREATE OR REPLACE VIEW {schema}.history AS
SELECT
    workflow_id, location, {schema}.display_location(location) AS at, iteration, version, kind, name, status,
    attempts, seq, created_at, CASE WHEN status <> 'pending' THEN coalesce(completed_at, created_at) END AS completed_at,
    wake_at, input, output, error, turn_state, turn_now, loop_progress, loop_state,
    false AS forgotten, NULL::timestamptz AS forgotten_at, 0 AS rewind
FROM {schema}.events
UNION ALL
SELECT
    workflow_id, location, {schema}.display_location(location), iteration, version, kind, name, status,
    attempts, seq, created_at, CASE WHEN status <> 'pending' THEN coalesce(completed_at, created_at) END,
    wake_at, input, output, error, turn_state, turn_now, loop_progress, loop_state,
    true, forgotten_at, rewind
FROM {schema}.forgotten_events;
--;
COMMENT ON COLUMN {schema}.history.rewind IS 'The rewind that undid the step, counted from 1; 0: none did. Undone steps are forgotten ones.';
