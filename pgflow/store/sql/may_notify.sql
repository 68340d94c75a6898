-- Whether notifications can be sent here, and are wanted: asked first where a refusal would end the caller's transaction.
SELECT
    coalesce(lower(current_setting('pgflow.hints', true)), '') NOT IN ('off', 'false', 'no', '0')
        AND NOT pg_is_in_recovery()
        AND coalesce(has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE'), false)
