-- What becomes of the runs: asleep, handed back, failed, or gone because their workflow has completed.
-- Going to sleep is decided here on the columns of the locked row: a signal or a request to cancel that came
-- in meanwhile makes the run pending at once, so that no wake-up is lost.
, ended AS MATERIALIZED (
    SELECT fenced.workflow_id, v.outcome, v.wake_at::timestamptz AS wake_at, v.waiting_for, v.mailbox,
           v.payload::json AS payload
    FROM unnest(
        %(outcome_run)s::int[],
        string_to_array(%(outcome)s::text, E'\x1f'),
        string_to_array(%(outcome_wake_at)s::text, E'\x1f', ''),
        string_to_array(%(waiting_for)s::text, E'\x1f', ''),
        %(mailbox)s::bigint[],
        string_to_array(%(payload)s::text, E'\x1f', '')
    ) AS v (run, outcome, wake_at, waiting_for, mailbox, payload)
    JOIN fenced ON fenced.run = v.run
),
stopped AS (
    UPDATE {schema}.runs AS r SET
        status = CASE
            WHEN ended.outcome = 'failed' THEN 'failed'
            WHEN ended.outcome = 'released' OR r.mailbox > ended.mailbox OR r.cancel_requested THEN 'pending'
            ELSE 'sleeping' END,
        wake_at = CASE
            WHEN ended.outcome = 'failed' THEN NULL
            WHEN ended.outcome = 'released' OR r.mailbox > ended.mailbox OR r.cancel_requested THEN now()
            WHEN ended.wake_at IS NOT NULL THEN greatest(ended.wake_at, now()) END,
        waiting_for = string_to_array(ended.waiting_for, E'\x1e'),
        unique_key = CASE WHEN ended.outcome <> 'failed' THEN r.unique_key END,
        worker_id = NULL,
        claim = NULL
    FROM ended
    WHERE r.workflow_id = ended.workflow_id AND ended.outcome <> 'completed'
),
gone AS (
    DELETE FROM {schema}.runs AS r
    USING ended
    WHERE r.workflow_id = ended.workflow_id AND ended.outcome = 'completed'
),
finished AS (
    UPDATE {schema}.workflows AS w SET
        status = ended.outcome,
        output = CASE WHEN ended.outcome = 'completed' THEN ended.payload END,
        error = CASE WHEN ended.outcome = 'failed' THEN ended.payload END,
        completed_at = now()
    FROM ended
    WHERE w.id = ended.workflow_id AND ended.outcome IN ('completed', 'failed')
)
