CREATE FUNCTION {schema}.find_live(workflow_name text, tags jsonb) RETURNS uuid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT w.id
    FROM {schema}.workflows AS w
    JOIN {schema}.runs AS r ON r.workflow_id = w.id
    WHERE w.name = workflow_name AND w.tags @> find_live.tags AND (find_live.tags = '{}' OR w.tags <> '{}')
    ORDER BY r.status = 'failed', w.created_at, w.id
    LIMIT 1
$function$;
--;
COMMENT ON FUNCTION {schema}.find_live(text, jsonb) IS
'The oldest live workflow of a name whose tags contain these, else the oldest failed one; null when there is none.';
