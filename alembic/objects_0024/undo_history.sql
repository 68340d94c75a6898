CREATE OR REPLACE FUNCTION {schema}.undo_history(workflow_id uuid, before text, number int, OUT cut int, OUT undone text, OUT steps int)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    copy uuid := gen_random_uuid();  -- under which history as it was before the step is put together
BEGIN
    cut := {schema}.copy_history(workflow_id, before, copy, 'rewind');
    WITH held AS MATERIALIZED (
        SELECT e.location, false AS forgotten, e.kind, e.status, e.seq, e.attempts, e.completed_at, e.wake_at, e.loop_progress, e.loop_seq
        FROM {schema}.events AS e WHERE e.workflow_id = workflow_id
        UNION ALL
        SELECT f.location, true, f.kind, f.status, f.seq, f.attempts, f.completed_at, f.wake_at, f.loop_progress, f.loop_seq
        FROM {schema}.forgotten_events AS f WHERE f.workflow_id = workflow_id AND f.rewind = 0
    ),
    copied AS MATERIALIZED (
        SELECT c.location, c.kind, c.status, c.seq, c.attempts, c.completed_at, c.wake_at, c.loop_progress, c.loop_seq
        FROM {schema}.events AS c WHERE c.workflow_id = copy
    ),
    loops AS MATERIALIZED (
        SELECT l.location, l.seq IS NOT NULL AS ended, {schema}.turn_location(l.location, coalesce(l.loop_progress, 0)) AS turn,
            {schema}.turn_location(l.location, coalesce(l.loop_progress, 0) + 1) AS later
        FROM copied AS l WHERE l.kind = 'loop'
    ),
    -- same: it stays as it is. forgets: a loop that only forgets turns which had ended by then. passed: a row of such a turn.
    fates AS MATERIALIZED (
        SELECT h.location, h.forgotten, h.kind, c.location IS NOT NULL AS stays,
            c.location IS NOT NULL AND (h.status, h.seq, h.attempts, h.completed_at, h.wake_at, h.loop_progress, h.loop_seq)
                IS NOT DISTINCT FROM (c.status, c.seq, c.attempts, c.completed_at, c.wake_at, c.loop_progress, c.loop_seq) AS same,
            c.location IS NOT NULL AND h.kind = 'loop' AND h.status = c.status
                AND coalesce(c.loop_progress, 0) >= coalesce(h.loop_progress, 0) AS forgets,
            c.location IS NULL AND h.location < before COLLATE "C" AND EXISTS (
                SELECT FROM loops AS l
                WHERE h.location > l.location || ',' COLLATE "C"
                  AND h.location < CASE WHEN l.ended THEN l.location || '-' ELSE l.turn END COLLATE "C") AS passed
        FROM held AS h LEFT JOIN copied AS c ON c.location = h.location
    ),
    goes AS MATERIALIZED (
        SELECT f.location, f.forgotten, f.kind, f.stays, regexp_replace(f.location, ',?[^,]*$', '') AS body
        FROM fates AS f WHERE NOT (f.same OR f.passed OR f.forgets)
    ),
    -- What was undone before the place: steps that do something under an id of their own, and whole bodies. Of those in one body that come after
    -- all that stays in it, the first and the last say enough.
    candidates AS MATERIALIZED (
        SELECT g.location, g.body FROM goes AS g
        WHERE g.location < before COLLATE "C"
          AND (g.kind IN ('activity', 'child_workflow', 'signal_send') OR (NOT g.stays AND g.kind IN ('loop', 'branch', 'timeout')))
    ),
    bodies AS MATERIALIZED (
        SELECT b.body, (
            SELECT max(f.location COLLATE "C") FROM fates AS f
            WHERE f.same AND (b.body = '' OR starts_with(f.location, b.body || ','))) AS stays_last
        FROM (SELECT DISTINCT c.body FROM candidates AS c) AS b
    ),
    earlier AS MATERIALIZED (
        SELECT c.location, c.body, b.stays_last FROM candidates AS c JOIN bodies AS b ON b.body = c.body
    ),
    marks AS MATERIALIZED (
        SELECT '=' || e.location AS mark FROM earlier AS e WHERE e.stays_last > e.location COLLATE "C"
        UNION ALL
        SELECT '+' || min(e.location COLLATE "C") || ':' || max(e.location COLLATE "C")
        FROM earlier AS e WHERE (e.stays_last > e.location COLLATE "C") IS NOT TRUE GROUP BY e.body
        UNION ALL
        -- Of turns that came later than the one to which a loop goes back, history may have been trimmed.
        SELECT '+' || l.later || ':'
        FROM loops AS l
        WHERE NOT l.ended AND l.location < before COLLATE "C"
          AND EXISTS (SELECT FROM goes AS g WHERE g.location = l.location OR starts_with(g.location, l.location || ','))
    ),
    moved AS (
        DELETE FROM {schema}.events AS e USING fates AS f
        WHERE e.workflow_id = workflow_id AND e.location = f.location AND NOT f.forgotten AND NOT f.same
        RETURNING e.*, f.passed, f.forgets
    ),
    archived AS (
        INSERT INTO {schema}.forgotten_events (
            workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input, output, error,
            wake_at, turn_state, turn_now, loop_progress, loop_state, encoding, turn_seq, loop_seq, rewind)
        SELECT m.workflow_id, m.location, m.iteration, m.seq, m.version, m.kind, m.name, m.status, m.attempts, m.created_at, m.completed_at,
            m.input, m.output, m.error, m.wake_at, m.turn_state, m.turn_now, m.loop_progress, m.loop_state, m.encoding, m.turn_seq, m.loop_seq,
            CASE WHEN m.passed THEN 0 ELSE number END
        FROM moved AS m WHERE NOT m.forgets
    ),
    relabelled AS (
        UPDATE {schema}.forgotten_events AS f SET rewind = number
        FROM goes AS g
        WHERE f.workflow_id = workflow_id AND f.location = g.location AND f.rewind = 0 AND g.forgotten
    ),
    revived AS (
        DELETE FROM {schema}.forgotten_events AS f USING fates AS o
        WHERE f.workflow_id = workflow_id AND f.location = o.location AND f.rewind = 0 AND o.forgotten AND (o.same OR o.forgets)
    ),
    spare AS (
        DELETE FROM {schema}.events AS c USING fates AS f
        WHERE c.workflow_id = copy AND c.location = f.location AND f.same AND NOT f.forgotten
    )
    SELECT (SELECT count(*) FROM goes), before || coalesce(' ' || (SELECT string_agg(m.mark, ' ' ORDER BY m.mark) FROM marks AS m), '')
    INTO steps, undone;
    UPDATE {schema}.events AS e SET workflow_id = workflow_id WHERE e.workflow_id = copy;
END
$function$;
