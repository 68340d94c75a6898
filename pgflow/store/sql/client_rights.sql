-- What a client can do here: whether notifications can be sent, whether this is a standby, and whether its role may write the tables, or only call
-- functions, and sees payloads (`pgflow db roles`).
SELECT
    coalesce(lower(current_setting('pgflow.hints', true)), '') NOT IN ('off', 'false', 'no', '0')
        AND NOT pg_is_in_recovery()
        AND coalesce(has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE'), false),
    pg_is_in_recovery(),
    has_table_privilege(%(runs)s::text, 'INSERT'),
    has_column_privilege(%(workflows)s::text, 'input', 'SELECT')
