CREATE FUNCTION {schema}.return_signals(workflow_id uuid, number int, ended_at timestamptz, mailbox bigint, before text, OUT last bigint,
    OUT returned int)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    first bigint := greatest(mailbox, (SELECT max(s.number) FROM {schema}.signals AS s WHERE s.workflow_id = workflow_id), 0);
    counted bigint;
BEGIN
    -- All that waits from now on is numbered anew, in the order in which it came. What a listen took is in the listen's output: its own row may
    -- be gone, and then it came after whatever had been taken before it. Of an ended workflow (ended_at) also what its end has dropped, which its
    -- time tells from what a person dropped, and what nobody has delivered: a delivery that began before this would drop that.
    WITH taken AS MATERIALIZED (
        SELECT (v.signal->>'id')::uuid AS id, v.signal->>'name' AS name, v.signal->'body' AS body, f.seq, v.place
        FROM {schema}.forgotten_events AS f
        CROSS JOIN LATERAL json_array_elements(CASE json_typeof(f.output) WHEN 'array' THEN f.output WHEN 'object' THEN json_build_array(f.output)
            ELSE '[]' END) WITH ORDINALITY AS v (signal, place)
        WHERE f.workflow_id = workflow_id AND f.rewind = number AND f.kind = 'listen' AND f.status = 'completed'
    ),
    placed AS (
        SELECT t.id, t.name, t.body, t.seq, t.place, s.id IS NULL AS gone,
            coalesce(s.number, max(s.number) OVER (ORDER BY t.seq, t.place ROWS UNBOUNDED PRECEDING), 0) AS came
        FROM taken AS t LEFT JOIN {schema}.signals AS s ON s.id = t.id AND s.workflow_id = workflow_id
    ),
    waiting AS (
        SELECT p.id, p.name, p.body, p.came, p.seq, p.place, p.gone, NULL::bigint AS arrival, true AS comes_back FROM placed AS p
        UNION ALL  -- taken in turns of loops that have been trimmed
        SELECT s.id, NULL, NULL, s.number, NULL, NULL, false, s.arrival, true
        FROM {schema}.signals AS s
        WHERE s.workflow_id = workflow_id AND s.consumed_at IS NOT NULL AND s.number IS NOT NULL AND s.location >= before COLLATE "C"
          AND NOT EXISTS (SELECT FROM placed AS p WHERE p.id = s.id)
        UNION ALL
        SELECT s.id, NULL, NULL, coalesce(s.number, 9223372036854775807), NULL, NULL, false, s.arrival, s.dropped_at IS NOT NULL
        FROM {schema}.signals AS s
        WHERE s.workflow_id = workflow_id AND s.consumed_at IS NULL AND s.problem IS NULL
          AND CASE
              WHEN s.dropped_at IS NOT NULL THEN ended_at IS NOT NULL AND (s.dropped_at = ended_at OR s.number IS NULL)
              WHEN s.number IS NULL THEN ended_at IS NOT NULL
              ELSE true END
    ),
    ordered AS MATERIALIZED (
        SELECT w.id, w.name, w.body, w.gone, w.comes_back, first + row_number() OVER (ORDER BY w.came, w.seq, w.place, w.arrival) AS becomes
        FROM waiting AS w
    ),
    there AS (
        UPDATE {schema}.signals AS s SET number = o.becomes, consumed_at = NULL, location = NULL, dropped_at = NULL
        FROM ordered AS o WHERE s.id = o.id AND NOT o.gone
    ),
    rebuilt AS (
        INSERT INTO {schema}.signals (id, workflow_id, name, body, number)
        SELECT o.id, workflow_id, o.name, o.body, o.becomes FROM ordered AS o WHERE o.gone
    )
    SELECT count(*), count(*) FILTER (WHERE o.comes_back) INTO counted, returned FROM ordered AS o;
    last := first + counted;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.return_signals(uuid, int, timestamptz, bigint, text) IS
'Puts the signals that a rewind has undone the taking of, and those that the workflow''s end dropped, back into its mailbox in their order. Returns the '
'mailbox''s last number, and how many came back.';
