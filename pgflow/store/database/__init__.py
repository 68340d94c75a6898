"""Connections to PostgreSQL: how they are opened, what travels on them, how they are lost and opened again.

A part of a worker has a `Line` (`connections.py`): one connection at a time, opened when it is needed.

    none --open, on a host that can be written to--> whole --statements--> whole
      ^                                                |
      |                                                '-- an error of the connection, or silence --> lost
      '-- after a pause that grows, and when the fence has moved ---------------------------------------'

What was sent on a connection that is lost may still arrive, so a worker's next one is not used before the fence has
moved (`pgflow/store/leasing/fencing.py`). A session is set to what the engine needs, whatever environment, role and
database say (`session_settings.py`); behind a pooler, where sessions are somebody else's a moment later, each
transaction is (`pooler.py`). Statements that belong together leave in one flush (`pipeline.py`).
"""
