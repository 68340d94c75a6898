-- The outcomes of runs (those whose workflow has ended are deleted; journal_stopped.sql has all others) and what is
-- kept with their workflows (state, tags). One row of `workflows` and one of `runs` is changed once, whatever a run asks.
, changed AS MATERIALIZED (
    SELECT fenced.workflow_id, fenced.mailbox AS arrived, fenced.waiters, v.outcome, v.wake_at::timestamptz AS wake_at, v.waiting_for, v.mailbox,
           v.payload::json AS payload, v.reset, v.fork_before, coalesce(v.flags, '') AS flags, v.state::json AS state,
           v.tags::jsonb AS tags, substring(v.flags FROM 'c([0-9]+)')::int AS cancels, v.outcome IN ('completed', 'cancelled') AS ends
    FROM unnest(
        %(outcome_run)s::int[],
        string_to_array(%(outcome)s::text, E'\x1f'),
        string_to_array(%(outcome_wake_at)s::text, E'\x1f', ''),
        string_to_array(%(waiting_for)s::text, E'\x1f', ''),
        %(mailbox)s::bigint[],
        string_to_array(%(payload)s::text, E'\x1f', ''),
        string_to_array(%(reset)s::text, E'\x1f', ''),
        string_to_array(%(fork_before)s::text, E'\x1f', ''),
        string_to_array(%(flags)s::text, E'\x1f', ''),
        string_to_array(%(state)s::text, E'\x1f', ''),
        string_to_array(%(tags)s::text, E'\x1f', '')
    ) AS v (run, outcome, wake_at, waiting_for, mailbox, payload, reset, fork_before, flags, state, tags)
    JOIN fenced ON fenced.run = v.run
),
gone AS (
    DELETE FROM {schema}.runs AS r
    WHERE r.workflow_id = ANY (ARRAY(SELECT changed.workflow_id FROM changed WHERE changed.ends))
),
finished AS (
    UPDATE {schema}.workflows AS w SET
        status = CASE WHEN changed.ends OR changed.outcome = 'failed' THEN changed.outcome ELSE w.status END,
        output = CASE WHEN changed.outcome = 'completed' THEN changed.payload ELSE w.output END,
        error = CASE WHEN changed.outcome = 'failed' THEN changed.payload WHEN NOT changed.ends THEN w.error END,
        completed_at = CASE WHEN changed.ends OR changed.outcome = 'failed' THEN now() ELSE w.completed_at END,
        state = coalesce(changed.state, w.state),
        tags = coalesce(changed.tags, w.tags),
        cancellations = CASE WHEN changed.cancels IS NULL THEN w.cancellations ELSE w.cancellations || changed.cancels END,
        tags_given = CASE WHEN changed.tags IS NOT NULL THEN coalesce(w.tags_given, w.tags) ELSE w.tags_given END
    FROM changed
    WHERE w.id = changed.workflow_id
      AND (changed.ends OR changed.outcome = 'failed' OR changed.state IS NOT NULL OR changed.tags IS NOT NULL
           OR changed.cancels IS NOT NULL)
    RETURNING w.id, CASE WHEN changed.ends OR changed.outcome = 'failed' THEN w.parent_id END AS parent_id
),
told AS (
    INSERT INTO {schema}.requests (workflow_id, kind)
    SELECT finished.parent_id, 'child' FROM finished WHERE finished.parent_id IS NOT NULL
    UNION
    SELECT waiter.id, 'child'
    FROM changed
    CROSS JOIN LATERAL unnest(changed.waiters) AS waiter (id)
    WHERE changed.ends OR changed.outcome = 'failed'
    UNION ALL
    SELECT w.id, 'cancel'
    FROM changed
    JOIN {schema}.workflows AS w ON w.parent_id = changed.workflow_id AND NOT w.detached AND w.status IS NULL
    WHERE changed.flags LIKE '%%c%%'
),
dropped AS (
    UPDATE {schema}.signals AS s SET dropped_at = now()
    WHERE s.id = ANY (ARRAY(
        SELECT left_over.id
        FROM changed
        CROSS JOIN LATERAL (
            SELECT t.id FROM {schema}.signals AS t
            WHERE t.workflow_id = changed.workflow_id AND t.number IS NOT NULL AND t.consumed_at IS NULL AND t.dropped_at IS NULL
            OFFSET 0
        ) AS left_over
        WHERE changed.ends AND changed.arrived > 0))
      AND s.id <> ALL (coalesce(%(consumed)s::uuid[] || %(aside)s::uuid[], '{}'))
)
