-- Whether notifications can be sent: by this role and the roles of workers that were granted as such, and how full the server's queue of them is.
SELECT lower(coalesce(current_setting('pgflow.hints', true), '')) IN ('off', 'false', 'no', '0'),
    CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_notification_queue_usage() END::float8,
    ARRAY(
        SELECT r.rolname::text
        FROM pg_roles AS r
        WHERE (r.rolname = current_user OR r.rolname IN (SELECT g.role FROM {schema}.roles AS g WHERE g.kind = 'worker'))
          AND NOT coalesce(has_function_privilege(r.oid, to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE'), false)
        ORDER BY 1 LIMIT 100)
