-- Whether notifications can be sent here: asked first where a refusal would end the caller's transaction.
SELECT coalesce(has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE'), false)
