"""The tables, the migrations that make them, and whether a schema and this code go together.

    nothing --upgrade--> at a revision --upgrade--> at the newest
                              '-- code of `compatible_from` or later works on it; older and too new code refuses

`tables.py` is what the newest migration comes to; a test compares them. The migrations themselves are in `alembic/` of
the checkout. One that has landed is never changed. Yesterday's workers go on on today's schema, so a deployment
migrates first and restarts afterwards.
"""
