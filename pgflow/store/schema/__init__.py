"""The tables, the migrations that make them, and whether a schema and this code go together.

    nothing --upgrade--> at a revision --upgrade--> at the newest
                              '-- code of `compatible_from` or later works on it; older and too new code refuses

`tables.py` describes the schema after the newest migration; a test compares the two. The migrations themselves are in
`alembic/` of the checkout. One that has landed is never changed. Yesterday's workers keep working on today's schema, so
a deployment migrates first and restarts afterwards.
"""
