CREATE VIEW {schema}.history AS
SELECT
    workflow_id, location, {schema}.display_location(location) AS at, iteration, version, kind, name, status, attempts, seq,
    created_at, completed_at, wake_at, input, output, error, turn_state, turn_now, loop_progress, loop_state,
    false AS forgotten, NULL::timestamptz AS forgotten_at
FROM {schema}.events
UNION ALL
SELECT
    workflow_id, location, {schema}.display_location(location), iteration, version, kind, name, status, attempts, seq,
    created_at, completed_at, wake_at, input, output, error, turn_state, turn_now, loop_progress, loop_state,
    true, forgotten_at
FROM {schema}.forgotten_events;
--;
COMMENT ON VIEW {schema}.history IS
'Active and forgotten history together. ORDER BY location gives the order of execution.';
--;
COMMENT ON COLUMN {schema}.history.workflow_id IS 'The workflow whose step this is.';
--;
COMMENT ON COLUMN {schema}.history.location IS 'Where the step stands, as stored: sort by this.';
--;
COMMENT ON COLUMN {schema}.history.at IS 'Where the step stands, as displayed: {2, 10}.';
--;
COMMENT ON COLUMN {schema}.history.iteration IS 'The turn of the innermost loop around the step, from 0.';
--;
COMMENT ON COLUMN {schema}.history.version IS 'The version of the context that called the step.';
--;
COMMENT ON COLUMN {schema}.history.kind IS 'What sort of step it is.';
--;
COMMENT ON COLUMN {schema}.history.name IS 'The name of the activity or workflow.';
--;
COMMENT ON COLUMN {schema}.history.status IS 'pending, completed, failed, cancelled or abandoned.';
--;
COMMENT ON COLUMN {schema}.history.attempts IS 'Attempts that have ended.';
--;
COMMENT ON COLUMN {schema}.history.seq IS 'The order in which results were delivered.';
--;
COMMENT ON COLUMN {schema}.history.created_at IS 'When the row was first written.';
--;
COMMENT ON COLUMN {schema}.history.completed_at IS 'When the step ended.';
--;
COMMENT ON COLUMN {schema}.history.wake_at IS 'The deadline of a pending step.';
--;
COMMENT ON COLUMN {schema}.history.input IS 'The arguments, by name.';
--;
COMMENT ON COLUMN {schema}.history.output IS 'The recorded result.';
--;
COMMENT ON COLUMN {schema}.history.error IS 'The last error.';
--;
COMMENT ON COLUMN {schema}.history.turn_state IS 'On the first row of a turn: the state that it started with.';
--;
COMMENT ON COLUMN {schema}.history.turn_now IS 'On the first row of a turn: the time that it started with.';
--;
COMMENT ON COLUMN {schema}.history.loop_progress IS 'On a loop: how many turns have been forgotten.';
--;
COMMENT ON COLUMN {schema}.history.loop_state IS 'On a loop: the state of the turn after those.';
--;
COMMENT ON COLUMN {schema}.history.forgotten IS 'Whether the row has left active history.';
--;
COMMENT ON COLUMN {schema}.history.forgotten_at IS 'When it did.';
--;
CREATE VIEW {schema}.workflow_overview AS
SELECT
    w.id, w.name, coalesce(w.status, r.status) AS status, r.queue, r.priority, w.tags, w.input, w.output, w.error,
    w.created_at, w.completed_at, r.wake_at, r.waiting_for, r.worker_id, k.host AS worker_host, k.pid AS worker_pid,
    k.expires_at AS lease_until, r.epoch, r.cancel_requested, w.parent_id, w.root_id
FROM {schema}.workflows AS w
LEFT JOIN {schema}.runs AS r ON r.workflow_id = w.id
LEFT JOIN {schema}.workers AS k ON k.id = r.worker_id;
--;
COMMENT ON VIEW {schema}.workflow_overview IS 'Everything about a workflow in one row.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.id IS 'The workflow''s id.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.name IS 'The registered name of its code.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.status IS 'pending, running, sleeping, paused, failed, completed or cancelled.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.queue IS 'The queue that workers serve; null once it has ended.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.priority IS 'Higher goes first.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.tags IS 'Its tags.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.input IS 'The arguments, by name.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.output IS 'What it returned.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.error IS 'What it failed with.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.created_at IS 'When it was dispatched.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.completed_at IS 'When it reached its final status.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.wake_at IS 'When it may be claimed next.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.waiting_for IS 'Signals that it waits for.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.worker_id IS 'The worker that runs it.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.worker_host IS 'The machine of that worker.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.worker_pid IS 'The process of that worker.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.lease_until IS 'When that worker''s lease ends without another heartbeat.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.epoch IS 'How often it has been claimed.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.cancel_requested IS 'Whether somebody asked to cancel it.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.parent_id IS 'The workflow that dispatched it.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.root_id IS 'The first of its ancestors.';
