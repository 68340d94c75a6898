CREATE OR REPLACE VIEW {schema}.history AS
SELECT
    workflow_id, location, {schema}.display_location(location) AS at, iteration, version, kind, name, status,
    attempts, seq, created_at, CASE WHEN status <> 'pending' THEN coalesce(completed_at, created_at) END AS completed_at,
    wake_at, input, output, error, turn_state, turn_now, loop_progress, loop_state,
    false AS forgotten, NULL::timestamptz AS forgotten_at
FROM {schema}.events
UNION ALL
SELECT
    workflow_id, location, {schema}.display_location(location), iteration, version, kind, name, status,
    attempts, seq, created_at, CASE WHEN status <> 'pending' THEN coalesce(completed_at, created_at) END,
    wake_at, input, output, error, turn_state, turn_now, loop_progress, loop_state,
    true, forgotten_at
FROM {schema}.forgotten_events;
