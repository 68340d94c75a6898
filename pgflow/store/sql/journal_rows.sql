-- Rows of history. A column travels as one text, its values joined by a character that JSON cannot contain:
-- ten times cheaper for the client than an array of values, and as cheap for the server.
-- A row that has ended is never overwritten, nor a pending one by one with fewer attempts (the server may execute a
-- batch late, after its connection broke and it was sent again). What only the older row knows is kept, and a loop's progress never goes back.
-- Rows that are not there yet, as far as this statement's snapshot tells, are inserted plainly: to be ready for a conflict
-- costs the log a fifth more. Should there be one after all, the journal sends the batch again with `careful`.
-- Such a row leaves out when it ended if that is `created_at`, by default the transaction's beginning: most do.
, given AS MATERIALIZED (
    SELECT
        fenced.workflow_id, v.location, v.iteration, v.seq, v.version, v.kind, coalesce(v.name, '') AS name, v.status, v.attempts,
        CASE WHEN v.status <> 'pending' THEN now() END AS completed_at,
        v.input::json AS input, v.output::json AS output, v.error::json AS error,
        v.wake_at::timestamptz AS wake_at,
        v.turn_state::json AS turn_state, v.turn_now::timestamptz AS turn_now, v.loop_progress, v.loop_state::json AS loop_state,
        v.turn_seq,
        %(careful)s::boolean OR EXISTS (
            SELECT FROM {schema}.events AS e WHERE e.workflow_id = fenced.workflow_id AND e.location = v.location OFFSET 0
        ) AS known
    FROM unnest(
        %(run)s::int[],
        string_to_array(%(location)s::text, E'\x1f'),
        %(iteration)s::int[],
        %(seq)s::int[],
        %(version)s::int[],
        string_to_array(%(kind)s::text, E'\x1f'),
        string_to_array(%(name)s::text, E'\x1f'),
        string_to_array(%(status)s::text, E'\x1f'),
        %(attempts)s::int[],
        string_to_array(%(input)s::text, E'\x1f', ''),
        string_to_array(%(output)s::text, E'\x1f', ''),
        string_to_array(%(error)s::text, E'\x1f', ''),
        string_to_array(%(wake_at)s::text, E'\x1f', ''),
        string_to_array(%(turn_state)s::text, E'\x1f', ''),
        string_to_array(%(turn_now)s::text, E'\x1f', ''),
        %(loop_progress)s::int[],
        string_to_array(%(loop_state)s::text, E'\x1f', ''),
        %(turn_seq)s::int[]
    ) AS v (
        run, location, iteration, seq, version, kind, name, status, attempts, input, output, error,
        wake_at, turn_state, turn_now, loop_progress, loop_state, turn_seq)
    JOIN fenced ON fenced.run = v.run
),
fresh AS (
    INSERT INTO {schema}.events (
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, completed_at,
        input, output, error, wake_at, turn_state, turn_now, loop_progress, loop_state, turn_seq)
    SELECT
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, nullif(completed_at, transaction_timestamp()),
        input, output, error, wake_at, turn_state, turn_now, loop_progress, loop_state, turn_seq
    FROM given
    WHERE NOT known
),
written AS (
    INSERT INTO {schema}.events AS e (
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, completed_at,
        input, output, error, wake_at, turn_state, turn_now, loop_progress, loop_state, turn_seq)
    SELECT
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, completed_at,
        input, output, error, wake_at, turn_state, turn_now, loop_progress, loop_state, turn_seq
    FROM given
    WHERE known
    ON CONFLICT (workflow_id, location) DO UPDATE SET
        iteration = excluded.iteration,
        seq = excluded.seq,
        version = excluded.version,
        kind = excluded.kind,
        name = excluded.name,
        status = excluded.status,
        attempts = excluded.attempts,
        completed_at = excluded.completed_at,
        input = coalesce(excluded.input, e.input),
        output = excluded.output,
        error = excluded.error,
        wake_at = excluded.wake_at,
        turn_state = coalesce(excluded.turn_state, e.turn_state),
        turn_now = coalesce(excluded.turn_now, e.turn_now),
        turn_seq = coalesce(excluded.turn_seq, e.turn_seq),
        loop_progress = greatest(excluded.loop_progress, e.loop_progress),
        loop_state = CASE WHEN e.loop_progress > coalesce(excluded.loop_progress, 0) THEN e.loop_state
            ELSE coalesce(excluded.loop_state, e.loop_state) END
    WHERE e.status = 'pending' AND (excluded.status <> 'pending' OR excluded.attempts >= e.attempts)
)
