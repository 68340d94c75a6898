"""What a schema holds, read from the server's own catalogue, to compare one way of making it with another."""

from __future__ import annotations

from typing import Any

import psycopg

from pgflow.store.database.channels import chore_channel, done_channel, mail_channel, wake_channel
from pgflow.store.database.connections import quoted

_TABLES = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, l.collname,
            pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        LEFT JOIN pg_collation AS l ON l.oid = a.attcollation
        WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind = 'r'
        ORDER BY c.relname, a.attnum""",
    "constraints": """
        SELECT c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid)
        FROM pg_constraint AS c WHERE c.connamespace = %(schema)s::regnamespace ORDER BY 1, 2""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = %(plain)s ORDER BY indexname""",
    "comments": """
        SELECT c.relname, obj_description(c.oid, 'pg_class')
        FROM pg_class AS c WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind = 'r' ORDER BY 1""",
}

_OBJECTS = {
    "storage": """
        SELECT c.relname, c.relkind, ARRAY(SELECT unnest(c.reloptions) ORDER BY 1)
        FROM pg_class AS c WHERE c.relnamespace = %(schema)s::regnamespace ORDER BY 1""",
    "views": """
        SELECT c.relname, pg_get_viewdef(c.oid), obj_description(c.oid, 'pg_class'), (
            SELECT array_agg(a.attname || ': ' || coalesce(col_description(c.oid, a.attnum), '?') ORDER BY a.attnum)
            FROM pg_attribute AS a WHERE a.attrelid = c.oid)
        FROM pg_class AS c WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind = 'v' ORDER BY 1""",
    "functions": """
        SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc')
        FROM pg_proc AS p WHERE p.pronamespace = %(schema)s::regnamespace ORDER BY 1""",
    "triggers": """
        SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid)
        FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
        WHERE c.relnamespace = %(schema)s::regnamespace AND NOT t.tgisinternal ORDER BY 1, 2""",
    "info": "SELECT version, compatible_from FROM schema_info",
}


def contents(dsn: str, schema: str = "pgflow", *, tables_only: bool = False) -> dict[str, Any]:
    """Everything in a schema as texts, its name taken out of them so that schemas can be compared."""
    name = quoted(schema)
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", [name])
        (unquoted,) = connection.execute("SELECT quote_ident(%s)", [schema]).fetchone() or ("",)

        def neutral(value: Any) -> Any:
            if isinstance(value, list):
                return [neutral(item) for item in value]
            if not isinstance(value, str):
                return value
            value = (
                value.replace(wake_channel(schema), "<wake>")
                .replace(mail_channel(schema), "<mail>")
                .replace(done_channel(schema), "<done>")
                .replace(chore_channel(schema), "<chore>")
                .replace(name, "<s>")
                .replace(name.replace("'", "''"), "<s>")  # within the text of a statement
            )
            for before in ("FUNCTION ", " ON "):
                value = value.replace(f"{before}{unquoted}.", f"{before}<s>.")
            return value

        found = {}
        for what, query in (_TABLES if tables_only else _TABLES | _OBJECTS).items():
            rows = connection.execute(query.encode(), {"schema": name, "plain": schema}).fetchall()
            found[what] = [neutral(list(row)) for row in rows if row[0] != "pgflow_version"]
        return found
