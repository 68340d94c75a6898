"""What shortens a wait, notifications and messages; nothing depends on their arrival.

    a commit --> noted, gathered for a moment --> NOTIFY, on a connection of its own --> listener --> somebody looks
                                                    '-- lost: polling finds it, later

A notification takes a lock of the whole database when it commits, so none is part of a transaction of history. A
listener also polls, and looks for itself after its connection was away. Messages (`outbox.py`, `messages.py`) are
stored in an unlogged table and announced the same way, at most once.
"""
