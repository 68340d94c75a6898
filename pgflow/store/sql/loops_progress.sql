-- Moves each loop's progress on, unless it is there already, and keeps the bounds of what is to be forgotten for the
-- statements after this one in the same transaction: they begin where the database says that the loop stood, not where
-- somebody believes it did. Turn i stands at `L, i+1`; a bound is a stored location, so that it sorts as execution does.
WITH given AS (
    SELECT *
    FROM unnest(
        %(workflow_ids)s::uuid[], %(locations)s::text[], %(turns)s::int[], %(keeps)s::int[], %(states)s::text[],
        %(outputs)s::text[], %(seqs)s::int[], %(started)s::int[], %(sweeps)s::boolean[]
    ) WITH ORDINALITY AS g (workflow_id, location, turns, keep, state, output, seq, started, sweep, number)
),
found AS MATERIALIZED (
    SELECT given.*, coalesce(e.loop_progress, 0) AS progress,
           CASE WHEN e.status <> 'pending' THEN coalesce(e.completed_at, e.created_at) END AS completed_at
    FROM given
    JOIN {schema}.events AS e ON e.workflow_id = given.workflow_id AND e.location = given.location
    WHERE e.kind = 'loop'
),
advanced AS (
    UPDATE {schema}.events AS e SET
        loop_progress = found.turns,
        loop_state = found.state::json,
        loop_seq = found.started,
        status = CASE WHEN found.seq IS NULL THEN e.status ELSE 'completed' END,
        output = CASE WHEN found.seq IS NULL THEN e.output ELSE found.output::json END,
        error = CASE WHEN found.seq IS NULL THEN e.error END,
        seq = coalesce(found.seq, e.seq),
        completed_at = CASE WHEN found.seq IS NULL THEN e.completed_at ELSE now() END
    FROM found
    WHERE e.workflow_id = found.workflow_id AND e.location = found.location AND e.status <> 'completed'
      AND found.progress < found.turns
    RETURNING found.number
),
bounds AS (
    SELECT found.number, found.workflow_id, found.location || ',' AS under, stored.turn
    FROM advanced
    JOIN found ON found.number = advanced.number
    CROSS JOIN LATERAL (
        SELECT array_agg(
            CASE WHEN t > 9 THEN chr(95 + length(t::text)) ELSE '' END || t::text ORDER BY place) AS turn
        FROM unnest(ARRAY[
            found.progress + 1,
            found.turns + 1,
            greatest(found.turns - found.keep, 0) + 1,
            CASE WHEN found.sweep THEN 1 ELSE greatest(found.progress - found.keep, 0) + 1 END
        ]) WITH ORDINALITY AS u (t, place)
    ) AS stored
)
SELECT
    found.number::int - 1,
    coalesce(CASE WHEN found.seq IS NOT NULL THEN found.completed_at END, now()),
    set_config('pgflow.loops', (
        SELECT coalesce(json_agg(json_build_object(
            'number', number, 'workflow_id', workflow_id,
            'begins', under || turn[1], 'ends', under || turn[2],
            'kept_from', under || turn[3], 'kept_before', under || turn[4])), '[]')::text
        FROM bounds), true)
FROM found
