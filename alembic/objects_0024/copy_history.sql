CREATE OR REPLACE FUNCTION {schema}.copy_history(workflow_id uuid, before text, new_id uuid, what text) RETURNS int
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    place record;
    cut int;  -- results up to this place in the order of completion are copied; null: all
    since timestamptz;  -- when the first result that is not copied was committed; null: there is none
    loop_row record;
    turn_row record;
    turn text;
    progress int;
    state json;
    start int;
    passed text := '';
BEGIN
    SELECT h.kind, h.completed_at INTO place
    FROM {schema}.history AS h WHERE h.workflow_id = workflow_id AND h.location = before COLLATE "C" AND h.rewind = 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION '%: history of workflow % has no step at %', what, workflow_id, {schema}.display_location(before)
            USING ERRCODE = 'no_data_found', HINT = CASE
                WHEN EXISTS (
                    SELECT FROM {schema}.events AS e
                    WHERE e.workflow_id = workflow_id AND e.kind = 'loop' AND starts_with(before, e.location || ',')
                      AND {schema}.turn_of(before, e.location) < e.loop_progress)
                    AND NOT EXISTS (
                        SELECT FROM {schema}.history AS h
                        WHERE h.workflow_id = workflow_id AND h.rewind = 0
                          AND h.location > before || ',' COLLATE "C" AND h.location < before || '-' COLLATE "C")
                    THEN 'That turn of the loop has been trimmed from history. Name a step in a turn that is kept, or the loop.'
                WHEN EXISTS (
                    SELECT FROM {schema}.history AS h
                    WHERE h.workflow_id = workflow_id AND h.rewind = 0
                      AND h.location > before || ',' COLLATE "C" AND h.location < before || '-' COLLATE "C")
                    THEN format('That is a turn or another body. Name a step in it: %s is the first.', (
                        SELECT {schema}.display_location(min(h.location)) FROM {schema}.history AS h
                        WHERE h.workflow_id = workflow_id AND h.rewind = 0
                          AND h.location > before || ',' COLLATE "C" AND h.location < before || '-' COLLATE "C"))
                ELSE 'Name the location of a step in active history, or in a turn that is kept.' END;
    END IF;
    -- What is copied came before in both orders. Of the results, those before the first one at the place or behind it: a result that
    -- came after one that is dropped may have come because of it.
    SELECT min(h.seq) - 1 INTO cut FROM {schema}.history AS h
    WHERE h.workflow_id = workflow_id AND h.location >= before COLLATE "C" AND h.rewind = 0;
    -- A loop behind the place whose first turns are gone may have had results ever since it was opened.
    SELECT least(cut, min(r.seq) - 1) INTO cut
    FROM {schema}.history AS l
    JOIN {schema}.history AS r ON r.workflow_id = l.workflow_id AND r.seq IS NOT NULL AND r.completed_at >= l.created_at AND r.rewind = 0
    WHERE l.workflow_id = workflow_id AND l.kind = 'loop' AND l.location >= before COLLATE "C" AND l.loop_progress > 0
      AND l.rewind = 0
      AND NOT EXISTS (
          SELECT FROM {schema}.history AS t
          WHERE t.workflow_id = workflow_id AND t.rewind = 0 AND t.location >= l.location || ',1,' COLLATE "C" AND t.location < l.location || ',1-' COLLATE "C");
    SELECT h.completed_at INTO since
    FROM {schema}.history AS h WHERE h.workflow_id = workflow_id AND h.seq > cut AND h.rewind = 0 ORDER BY h.seq, h.completed_at LIMIT 1;
    IF since IS NULL AND place.kind NOT IN ('branch', 'version_check', 'removed') THEN
        since := place.completed_at;
    END IF;
    INSERT INTO {schema}.events (
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input, output, error,
        wake_at, turn_state, turn_now, loop_progress, loop_state, encoding, turn_seq, loop_seq)
    SELECT new_id, e.location, e.iteration, e.seq, e.version, e.kind, e.name, e.status, e.attempts, e.created_at, e.completed_at, e.input,
        e.output, e.error, e.wake_at, e.turn_state, e.turn_now, e.loop_progress, e.loop_state, e.encoding, e.turn_seq,
        e.loop_seq
    FROM {schema}.events AS e WHERE e.workflow_id = workflow_id AND e.location < before COLLATE "C";
    -- Each loop that had not ended by then goes back to the turn that it was in, the outer ones first.
    LOOP
        SELECT e.location, e.status, e.seq, e.created_at, coalesce(e.loop_progress, 0) AS progress, e.loop_state, e.loop_seq,
            CASE WHEN starts_with(before, e.location || ',') THEN {schema}.turn_of(before, e.location) END AS last
        INTO loop_row
        FROM {schema}.events AS e
        WHERE e.workflow_id = new_id AND e.kind = 'loop' AND e.location > passed COLLATE "C"
        ORDER BY e.location COLLATE "C" LIMIT 1;
        EXIT WHEN NOT FOUND;
        passed := loop_row.location;
        CONTINUE WHEN loop_row.last IS NULL AND loop_row.seq IS NOT NULL AND (cut IS NULL OR loop_row.seq <= cut);
        IF loop_row.created_at > since THEN  -- it was opened later
            DELETE FROM {schema}.events AS e
            WHERE e.workflow_id = new_id AND (e.location = loop_row.location OR starts_with(e.location, loop_row.location || ','));
            CONTINUE;
        END IF;
        progress := NULL;
        SELECT n.number, h.turn_state, h.turn_seq INTO turn_row
        FROM (
            SELECT e.workflow_id, e.location, e.turn_state, e.turn_seq FROM {schema}.events AS e
            UNION ALL
            SELECT f.workflow_id, f.location, f.turn_state, f.turn_seq FROM {schema}.forgotten_events AS f WHERE f.rewind = 0
        ) AS h
        CROSS JOIN LATERAL (SELECT string_to_array(substr(h.location, length(loop_row.location) + 2), ',') AS rest) AS r
        CROSS JOIN LATERAL (SELECT regexp_replace(r.rest[1], '[a-z]', '', 'g')::int - 1 AS number) AS n
        WHERE h.workflow_id = workflow_id AND h.turn_state IS NOT NULL AND cardinality(r.rest) = 2
          AND h.location > loop_row.location || ',' COLLATE "C" AND h.location < loop_row.location || '-' COLLATE "C"
          AND (cut IS NULL OR coalesce(h.turn_seq, 0) <= cut) AND (loop_row.last IS NULL OR n.number <= loop_row.last)
        ORDER BY n.number DESC, h.location COLLATE "C" LIMIT 1;
        IF FOUND THEN
            progress := turn_row.number;
            state := turn_row.turn_state;
            start := turn_row.turn_seq;
        END IF;
        IF loop_row.last IS NULL AND loop_row.status <> 'completed' AND loop_row.progress > coalesce(progress, -1)
            AND (cut IS NULL OR coalesce(loop_row.loop_seq, 0) <= cut)
        THEN  -- a turn that had no row yet
            progress := loop_row.progress;
            state := loop_row.loop_state;
            start := loop_row.loop_seq;
        END IF;
        IF progress IS NULL THEN
            RAISE EXCEPTION '%: before % the loop at % was in a turn that has been trimmed from history', what,
                {schema}.display_location(before), {schema}.display_location(loop_row.location)
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Choose a place before a turn that is kept, or before the loop.';
        END IF;
        turn := {schema}.turn_location(loop_row.location, progress) || ',';
        -- Turns before it are of no use to a replay; its own forgotten rows come back.
        DELETE FROM {schema}.events AS e
        WHERE e.workflow_id = new_id AND starts_with(e.location, loop_row.location || ',') AND NOT starts_with(e.location, turn);
        INSERT INTO {schema}.events (
            workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input, output, error,
            wake_at, turn_state, turn_now, loop_progress, loop_state, encoding, turn_seq, loop_seq)
        SELECT new_id, f.location, f.iteration, f.seq, f.version, f.kind, f.name, f.status, f.attempts, f.created_at, f.completed_at,
            f.input, f.output, f.error, f.wake_at, f.turn_state, f.turn_now, f.loop_progress, f.loop_state, f.encoding,
            f.turn_seq, f.loop_seq
        FROM {schema}.forgotten_events AS f
        WHERE f.workflow_id = workflow_id AND f.rewind = 0 AND f.location > loop_row.location || ',' COLLATE "C"
          AND f.location < loop_row.location || '-' COLLATE "C" AND starts_with(f.location, turn) AND f.location < before COLLATE "C"
        ON CONFLICT DO NOTHING;
        UPDATE {schema}.events AS e SET
            status = 'pending', seq = NULL, completed_at = NULL, output = NULL, error = NULL,
            loop_progress = progress, loop_state = state, loop_seq = start
        WHERE e.workflow_id = new_id AND e.location = loop_row.location;
    END LOOP;
    -- What ended later has not ended; its deadlines count anew. So with what the code itself cancelled: it does so again.
    UPDATE {schema}.events AS e SET
        status = 'pending', attempts = 0, seq = NULL, completed_at = NULL, output = NULL, error = NULL, wake_at = NULL
    WHERE e.workflow_id = new_id AND e.kind <> 'loop' AND (
        e.seq > cut
        OR (e.seq IS NULL AND e.status = 'cancelled')
        OR (e.seq IS NULL AND e.status = 'completed' AND e.kind = 'timeout' AND coalesce(e.completed_at, e.created_at) >= since));
    -- What was called later goes, unless a row that stays has been called after it: history has no holes.
    WITH stays AS MATERIALIZED (
        SELECT array_to_string((string_to_array(k.location, ','))[1:depth], ',') AS scope, max(k.location COLLATE "C") AS last
        FROM {schema}.events AS k
        CROSS JOIN LATERAL generate_series(0, cardinality(string_to_array(k.location, ',')) - 1) AS depth
        WHERE k.workflow_id = new_id AND (k.seq IS NOT NULL OR k.created_at <= since)
        GROUP BY 1
    )
    DELETE FROM {schema}.events AS e
    WHERE e.workflow_id = new_id AND e.location = ANY (ARRAY(
        SELECT c.location
        FROM {schema}.events AS c
        LEFT JOIN stays ON stays.scope = array_to_string(trim_array(string_to_array(c.location, ','), 1), ',')
        WHERE c.workflow_id = new_id AND c.seq IS NULL AND c.created_at > since
          AND (stays.last IS NULL OR stays.last < c.location COLLATE "C")));
    RETURN cut;
END
$function$;
