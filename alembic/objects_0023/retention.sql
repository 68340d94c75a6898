CREATE FUNCTION {schema}.retention_seconds(given text, what text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    found double precision;
BEGIN
    IF given IS NULL THEN
        RETURN NULL;
    ELSIF given = 'forever' THEN
        RETURN 'infinity';
    END IF;
    BEGIN
        found := extract(epoch FROM given::interval);
    EXCEPTION WHEN data_exception THEN
        found := NULL;
    END;
    IF found IS NULL OR found <= 0 THEN
        RAISE EXCEPTION 'retention: %=%: expected a duration above 0, such as 30 days, or forever', what, quote_literal(left(given, 100))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN found;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.retention_seconds(text, text) IS 'How long something is to be kept, in seconds: of an interval, or of forever; null of null.';
--;
CREATE FUNCTION {schema}.set_retention(
    name text, keep text DEFAULT NULL, failed text DEFAULT NULL, missing_ok boolean DEFAULT false, reason text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    kept double precision := {schema}.retention_seconds(keep, 'keep');
    failures double precision := {schema}.retention_seconds(failed, 'failed');
BEGIN
    IF coalesce(name, '') = '' OR length(name) > 200 OR name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'retention: name is %, expected the name of a workflow (1 to 200 printable characters), or *', coalesce(quote_literal(left(name, 300)), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF kept IS NULL AND failures IS NULL THEN
        RAISE EXCEPTION 'retention: nothing is to be set for %, expected keep, failed, or both', quote_literal(name)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'reset takes back what was set.';
    END IF;
    IF name <> '*' AND NOT coalesce(missing_ok, false)
        AND NOT EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.name = name)
        AND NOT EXISTS (SELECT FROM {schema}.retention AS r WHERE r.name = name)
    THEN
        RAISE EXCEPTION 'retention: no workflow % was ever dispatched here, and nothing was set for it before', quote_literal(name)
            USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Is it spelled so? If it is, say that it may be missing: missing_ok=True, missing_ok => true, --missing-ok.';
    END IF;
    INSERT INTO {schema}.retention AS r (name, set_by, keep, failed) VALUES (name, 'operator', kept, failures)
    ON CONFLICT ON CONSTRAINT retention_pkey DO UPDATE SET
        keep = coalesce(EXCLUDED.keep, r.keep), failed = coalesce(EXCLUDED.failed, r.failed), changed_at = now();
    INSERT INTO {schema}.chores AS c (name) VALUES ('retention') ON CONFLICT ON CONSTRAINT chores_pkey DO UPDATE SET next_at = now();
    PERFORM {schema}.write_audit('retention', NULL, name, reason, actor, jsonb_strip_nulls(jsonb_build_object('keep', keep, 'failed', failed)));
    IF {schema}.may_hint() THEN
        PERFORM pg_notify('{chore_channel}', 'retention');
    END IF;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.set_retention(text, text, text, boolean, text, text) IS
'Says how long workflows of a name (*: of any that has nothing of its own) are kept once they have completed or were cancelled (keep), or failed: an interval, or forever. What is not given stays as it is. A name that nobody has dispatched yet is refused unless it may be missing. The reason and the actor go into the table audit.';
--;
CREATE FUNCTION {schema}.reset_retention(name text, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    DELETE FROM {schema}.retention AS r WHERE r.name = name AND r.set_by = 'operator';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM {schema}.write_audit('retention', NULL, name, reason, actor, '{"reset": true}');
    RETURN true;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.reset_retention(text, text, text) IS
'Takes back what set_retention has set for a name: what its code says holds again, else what is set for *. False when nothing was set. The reason and the actor go into the table audit.';
--;
CREATE FUNCTION {schema}.retained_for(name text, what text) RETURNS double precision
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT CASE retained_for.what WHEN 'failed' THEN r.failed ELSE r.keep END
    FROM {schema}.retention AS r
    WHERE r.name IN (rtrim(retained_for.name, chr(31)), '*') AND NOT (r.name = '*' AND r.set_by = 'code')
      AND CASE retained_for.what WHEN 'failed' THEN r.failed ELSE r.keep END IS NOT NULL
    ORDER BY r.name = '*', r.set_by = 'code'
    LIMIT 1
$function$;
--;
COMMENT ON FUNCTION {schema}.retained_for(text, text) IS
'How many seconds ended workflows of a name are kept (what: keep, or failed): the operator''s for the name, else the code''s, else the operator''s for *; null, or infinity: for ever.';
