-- Roles that were granted rights and have gone, have more than that, or less; and functions with the owner's rights that are everybody's.
WITH granted AS MATERIALIZED (
    SELECT g.role, g.kind, g.payloads, r.oid FROM {schema}.roles AS g LEFT JOIN pg_roles AS r ON r.rolname = g.role
    ORDER BY g.role, g.kind LIMIT 200
)
SELECT 'gone' AS what, g.role, g.kind, NULL::text[] AS of_which FROM granted AS g WHERE g.oid IS NULL
UNION ALL
SELECT 'owner', g.role, g.kind, NULL
FROM granted AS g JOIN pg_class AS c ON c.oid = to_regclass(%(runs)s::text)
WHERE g.oid IS NOT NULL AND pg_has_role(g.oid, c.relowner, 'MEMBER')
UNION ALL
SELECT 'lacks', g.role, g.kind, array_agg(lack.what ORDER BY lack.what)
FROM granted AS g
CROSS JOIN LATERAL (
    SELECT t.right_ || ' on ' || t.name AS what
    FROM unnest(%(kinds)s::text[], %(payloads)s::boolean[], %(relations)s::text[], %(rights)s::text[]) AS t (kind, payloads, name, right_)
    JOIN pg_class AS c ON c.relname = t.name
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = %(schema)s::text
    WHERE t.kind = g.kind AND (g.payloads OR NOT t.payloads) AND NOT has_table_privilege(g.oid, c.oid, t.right_)
    UNION ALL
    SELECT 'EXECUTE on ' || p.proname
    FROM unnest(%(callers)s::text[], %(functions)s::text[]) AS f (kind, name)
    JOIN pg_proc AS p ON p.proname = f.name
    JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname = %(schema)s::text
    WHERE f.kind = g.kind AND NOT has_function_privilege(g.oid, p.oid, 'EXECUTE')
) AS lack
WHERE g.oid IS NOT NULL
GROUP BY g.role, g.kind
UNION ALL
SELECT 'everybodys', NULL, NULL, array_agg(p.proname::text ORDER BY p.proname)
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s::text AND p.prosecdef AND p.prorettype <> 'trigger'::regtype
  AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0))
HAVING count(*) > 0
