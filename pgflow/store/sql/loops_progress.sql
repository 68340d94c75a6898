-- Moves each loop's progress on, unless it is there already, and keeps what it was for the statements after this one
-- in the same transaction: the rows to move begin where the database says that the loop stood, not where somebody
-- believes it did.
WITH given AS (
    SELECT *
    FROM unnest(
        %(workflow_ids)s::uuid[], %(locations)s::text[], %(turns)s::int[], %(keeps)s::int[], %(states)s::text[],
        %(outputs)s::text[], %(seqs)s::int[], %(ends)s::text[], %(sweeps)s::boolean[]
    ) WITH ORDINALITY AS g (workflow_id, location, turns, keep, state, output, seq, ends, sweep, number)
),
found AS MATERIALIZED (
    SELECT given.*, coalesce(e.loop_progress, 0) AS progress, e.status
    FROM given
    JOIN {schema}.events AS e ON e.workflow_id = given.workflow_id AND e.location = given.location
    WHERE e.kind = 'loop'
),
moved AS (
    UPDATE {schema}.events AS e SET
        loop_progress = found.turns,
        loop_state = found.state::json,
        status = CASE WHEN found.seq IS NULL THEN e.status ELSE 'completed' END,
        output = CASE WHEN found.seq IS NULL THEN e.output ELSE found.output::json END,
        seq = coalesce(found.seq, e.seq),
        completed_at = CASE WHEN found.seq IS NULL THEN e.completed_at ELSE now() END
    FROM found
    WHERE e.workflow_id = found.workflow_id AND e.location = found.location AND e.status = 'pending'
      AND (found.progress < found.turns OR (found.seq IS NOT NULL AND found.progress = found.turns))
    RETURNING found.number, found.progress
)
SELECT
    now(),
    (SELECT array_agg(number::int) FROM found),
    set_config('pgflow.loops', (
        SELECT coalesce(json_agg(json_build_object(
            'workflow_id', found.workflow_id, 'location', found.location, 'progress', moved.progress,
            'turns', found.turns, 'ends', found.ends, 'keep', found.keep, 'sweep', found.sweep)), '[]')::text
        FROM moved JOIN found ON found.number = moved.number), true)
