CREATE VIEW {schema}.workflow_overview AS
SELECT
    w.id, w.name, coalesce(w.status, r.status) AS status, r.queue, r.priority, w.tags, w.input, w.output, w.error,
    w.created_at, w.completed_at, r.wake_at, r.waiting_for, r.worker_id, k.host AS worker_host, k.pid AS worker_pid,
    k.expires_at AS lease_until, r.epoch, r.cancel_requested, w.parent_id, w.root_id,
    w.state, r.pause_requested, r.awaits_children, w.detached, w.forked_from, r.reset, r.fork_before, w.tags_given
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
--;
COMMENT ON COLUMN {schema}.workflow_overview.state IS 'What its activities keep in ActivityContext.state.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.pause_requested IS 'Whether somebody asked to pause it.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.awaits_children IS 'Whether the end of a child wakes it.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.detached IS 'Whether cancelling its parent does not reach it.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.forked_from IS 'The workflow from whose history it was forked.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.reset IS 'Failed: locations of the steps that a retry runs again.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.fork_before IS 'Failed and not to be retried: the location before which to fork it.';
--;
COMMENT ON COLUMN {schema}.workflow_overview.tags_given IS 'The tags given at its dispatch, if activities have changed them.';
