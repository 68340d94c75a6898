CREATE FUNCTION {schema}.note_finders() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $function$
BEGIN
    INSERT INTO {schema}.finders (workflow_id, finder_id, location)
    SELECT NEW.workflow_id, found.id, ''
    FROM (SELECT unnest(NEW.waiters) EXCEPT SELECT unnest(OLD.waiters)) AS found (id)
    WHERE NOT EXISTS (SELECT FROM {schema}.finders AS f WHERE f.workflow_id = NEW.workflow_id AND f.finder_id = found.id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.note_finders() IS
'Trigger: enters into finders those who wait for a workflow that they found, where code of before has noted them in runs.waiters alone.';
--;
CREATE TRIGGER runs_found AFTER UPDATE OF waiters ON {schema}.runs
FOR EACH ROW WHEN (NEW.waiters IS DISTINCT FROM OLD.waiters) EXECUTE FUNCTION {schema}.note_finders();
--;
CREATE FUNCTION {schema}.may_await(holder uuid, at text, child uuid) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $function$
#variable_conflict use_variable
DECLARE
    step record;
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.runs AS r WHERE r.workflow_id = holder) THEN
        RETURN false;
    END IF;
    IF coalesce(at, '') = '' THEN
        RETURN true;  -- nobody noted where
    END IF;
    SELECT e.status, CASE WHEN e.kind = 'child_workflow' THEN e.output->>'id' END AS found INTO step
    FROM {schema}.events AS e WHERE e.workflow_id = holder AND e.location = at COLLATE "C";
    IF FOUND THEN
        RETURN step.status = 'pending' OR (step.status = 'completed' AND step.found IS NOT DISTINCT FROM child::text);
    END IF;
    -- Either it has not been recorded yet, or it has been forgotten with its turn of a loop. The turn stands behind the loop in the location.
    RETURN NOT EXISTS (
        SELECT
        FROM generate_series(1, cardinality(string_to_array(at, ',')) - 2) AS depth
        JOIN {schema}.events AS e
            ON e.workflow_id = holder AND e.location = array_to_string((string_to_array(at, ','))[1:depth], ',') COLLATE "C"
        WHERE e.kind = 'loop' AND (
            e.status <> 'pending'
            OR e.loop_progress >= regexp_replace(split_part((string_to_array(at, ','))[depth + 1], '.', 1), '[a-z]', '', 'g')::numeric));
END
$function$;
--;
COMMENT ON FUNCTION {schema}.may_await(uuid, text, uuid) IS
'Whether a workflow may still await another one that it started, or found, at a location: it is live or failed, and that step is in its active history or not recorded yet.';
--;
CREATE FUNCTION {schema}.remove_workflows(
    workflow_ids uuid[], older_than interval, dry_run boolean DEFAULT false, audited boolean DEFAULT false, reason text DEFAULT NULL,
    actor text DEFAULT NULL
) RETURNS TABLE (id uuid, stays text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $function$
#variable_conflict use_variable
DECLARE
    before timestamptz := now() - older_than;
    failed uuid[];
    ripe uuid[];
    held uuid[];
    gone uuid[];
BEGIN
    IF EXISTS (SELECT FROM {schema}.chores AS c WHERE c.name = 'finders') THEN
        RAISE EXCEPTION 'prune: it is not entered yet who has found which unique workflow before schema 0020; workers do that'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let a worker run, and try again in a while.';
    END IF;
    -- Runs first, then workflows, each in order. What somebody else has locked is left for another time: nobody waits.
    IF dry_run THEN
        SELECT array_agg(w.id) INTO ripe
        FROM {schema}.workflows AS w
        WHERE w.id = ANY (workflow_ids) AND w.status IN ('completed', 'failed', 'cancelled') AND w.completed_at <= before;
    ELSE
        SELECT array_agg(locked.workflow_id) INTO failed
        FROM (
            SELECT r.workflow_id FROM {schema}.runs AS r
            WHERE r.workflow_id = ANY (workflow_ids) AND r.status = 'failed'
            ORDER BY r.workflow_id FOR UPDATE SKIP LOCKED
        ) AS locked;
        SELECT array_agg(locked.id) INTO ripe
        FROM (
            SELECT w.id FROM {schema}.workflows AS w
            WHERE w.id = ANY (workflow_ids) AND w.completed_at <= before
              AND (w.status IN ('completed', 'cancelled') OR (w.status = 'failed' AND w.id = ANY (failed)))
            ORDER BY w.id FOR UPDATE SKIP LOCKED
        ) AS locked;
    END IF;
    -- From here on by what is known behind the locks. Who does not hold one of these by now never will.
    SELECT array_agg(w.id) INTO held
    FROM {schema}.workflows AS w
    WHERE w.id = ANY (ripe) AND (
        (w.parent_id IS NOT NULL AND {schema}.may_await(w.parent_id, w.parent_location, w.id))
        OR EXISTS (
            SELECT FROM {schema}.finders AS f
            WHERE f.workflow_id = w.id AND {schema}.may_await(f.finder_id, f.location, f.workflow_id)));
    SELECT array_agg(r.id) INTO gone FROM unnest(ripe) AS r (id) WHERE r.id <> ALL (coalesce(held, '{}'));
    IF NOT dry_run AND gone IS NOT NULL THEN
        -- A signal whose sender may not have recorded it yet, and would send it again, is found by its id then: it goes with those that
        -- were taken. (Only what nobody else has locked.)
        WITH mail AS MATERIALIZED (
            SELECT s.id, s.sender_id IS NOT NULL AND EXISTS (
                SELECT FROM {schema}.runs AS r WHERE r.workflow_id = s.sender_id AND r.status <> 'sleeping') AS again
            FROM {schema}.signals AS s WHERE s.workflow_id = ANY (gone)
            FOR UPDATE OF s SKIP LOCKED
        ),
        dropped AS (
            UPDATE {schema}.signals AS s SET dropped_at = coalesce(s.dropped_at, s.consumed_at, now()), problem = NULL
            WHERE s.id = ANY (ARRAY(SELECT mail.id FROM mail WHERE mail.again))
        )
        DELETE FROM {schema}.signals AS s WHERE s.id = ANY (ARRAY(SELECT mail.id FROM mail WHERE NOT mail.again));
        DELETE FROM {schema}.requests AS q WHERE q.id = ANY (ARRAY(
            SELECT o.id FROM {schema}.requests AS o WHERE o.workflow_id = ANY (gone) FOR UPDATE SKIP LOCKED));
        DELETE FROM {schema}.finders AS f WHERE f.workflow_id = ANY (gone);
        DELETE FROM {schema}.finders AS f WHERE f.finder_id = ANY (gone);
        DELETE FROM {schema}.forgotten_events AS f WHERE f.workflow_id = ANY (gone);
        DELETE FROM {schema}.events AS e WHERE e.workflow_id = ANY (gone);
        DELETE FROM {schema}.runs AS r WHERE r.workflow_id = ANY (gone);
        DELETE FROM {schema}.workflows AS w WHERE w.id = ANY (gone);
        IF audited THEN
            PERFORM {schema}.write_audit('prune', g.id, NULL, reason, actor) FROM unnest(gone) AS g (id);
        END IF;
    END IF;
    RETURN QUERY
    SELECT given.id, CASE
        WHEN given.id = ANY (gone) THEN NULL
        WHEN given.id = ANY (held) THEN 'awaited'
        ELSE 'busy' END
    FROM unnest(workflow_ids) AS given (id);
END
$function$;
--;
COMMENT ON FUNCTION {schema}.remove_workflows(uuid[], interval, boolean, boolean, text, text) IS
'Removes those of these workflows that ended at least so long ago and that nobody may still await, with all that is their own. A row for each: null, or why it stays: it may be awaited, or it is busy (locked, live, young or not there).';
--;
CREATE FUNCTION {schema}.prune(
    older_than interval, statuses text[] DEFAULT '{completed,cancelled}', name text DEFAULT NULL, queue text DEFAULT NULL,
    tags jsonb DEFAULT NULL, parent_id uuid DEFAULT NULL, dry_run boolean DEFAULT false, most int DEFAULT 100, after timestamptz DEFAULT NULL,
    after_id uuid DEFAULT NULL, reason text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS TABLE (at timestamptz, last uuid, id uuid, stays text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $function$
#variable_conflict use_variable
DECLARE
    look constant int := 5000;  -- at so many workflows, at most
    filters text := concat(
        CASE WHEN name IS NOT NULL THEN ' AND rtrim(o.name, chr(31)) = $2' END, CASE WHEN queue IS NOT NULL THEN ' AND o.queue = $3' END);
    matching text := concat(
        CASE WHEN tags IS NOT NULL THEN ' AND w.tags @> $4' END, CASE WHEN parent_id IS NOT NULL THEN ' AND w.parent_id = $5' END);
    kinds text[] := array_remove(statuses, 'failed');
    sources text[];
    chosen uuid[];
BEGIN
    IF older_than IS NULL OR older_than < interval '0' THEN
        RAISE EXCEPTION 'prune: older_than is %, expected an interval of 0 or more', coalesce(older_than::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF most IS NULL OR most NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'prune: most is %, expected 1 to 1000', coalesce(most::text, 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'All of them go in one transaction. Call it again for more.';
    END IF;
    IF coalesce(cardinality(statuses), 0) = 0 OR NOT statuses <@ ARRAY['completed', 'failed', 'cancelled'] THEN
        RAISE EXCEPTION 'prune: statuses are %, expected completed, failed or cancelled, one or several', coalesce(statuses::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cardinality(kinds) > 0 THEN
        sources := ARRAY[
            '(SELECT o.workflow_id AS id, o.ended_at AS at FROM {text}.ends AS o WHERE o.ended_at <= $1 AND o.status = ANY ($9)' || replace(filters, 'rtrim(o.name, chr(31))', 'o.name')
            || CASE WHEN after IS NOT NULL THEN ' AND (o.ended_at, o.workflow_id) > ($6, $7)' ELSE '' END
            || ' ORDER BY o.ended_at, o.workflow_id LIMIT $8)'];
    END IF;
    IF 'failed' = ANY (statuses) THEN
        sources := sources || (
            '(SELECT o.workflow_id AS id, o.failed_at AS at FROM {text}.runs AS o WHERE o.failed_at <= $1 AND o.status = ''failed''' || filters
            || CASE WHEN after IS NOT NULL THEN ' AND (o.failed_at, o.workflow_id) > ($6, $7)' ELSE '' END
            || ' ORDER BY o.failed_at, o.workflow_id LIMIT $8)');
    END IF;
    -- Planned anew each time, for what is given.
    EXECUTE 'WITH looked AS MATERIALIZED (SELECT s.id, s.at FROM (' || array_to_string(sources, ' UNION ALL ') || ') AS s ORDER BY s.at, s.id LIMIT $8), '
        'chosen AS MATERIALIZED ('
        'SELECT looked.id, looked.at FROM looked '
        'CROSS JOIN LATERAL (SELECT FROM {text}.workflows AS w WHERE w.id = looked.id' || matching || ' OFFSET 0) AS matching '
        'ORDER BY looked.at, looked.id LIMIT $10) '
        'SELECT l.at, l.id, ARRAY(SELECT chosen.id FROM chosen) FROM ('
        'SELECT chosen.at, chosen.id FROM chosen WHERE (SELECT count(*) FROM chosen) = $10 '
        'UNION ALL SELECT looked.at, looked.id FROM looked WHERE (SELECT count(*) FROM chosen) < $10'
        ') AS l ORDER BY l.at DESC, l.id DESC LIMIT 1'
    INTO at, last, chosen
    USING now() - older_than, name, queue, tags, parent_id, after, after_id, look, kinds, most;
    IF cardinality(chosen) > 0 THEN
        RETURN QUERY
        SELECT at, last, r.id, r.stays FROM {schema}.remove_workflows(chosen, older_than, dry_run, true, reason, actor) AS r;
    ELSIF last IS NOT NULL THEN
        RETURN NEXT;
    END IF;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.prune(interval, text[], text, text, jsonb, uuid, boolean, integer, timestamptz, uuid, text, text) IS
'Looks through some of what ended at least so long ago, the first first, and removes up to `most` of those that match and that nobody may still await. A row for each: null, or why it stays; with it the place at which to go on, to be given as after and after_id (a row without an id has nothing else). No row: that was all. The reason and the actor go into the table audit.';
