"""What shortens a wait, notifications and messages; nothing depends on their arrival.

    a commit --> noted, gathered for a moment --> NOTIFY, on a connection of its own --> listener --> somebody looks
                                                    '-- lost: polling finds it, later

A notification takes a lock of the whole database when it commits, so none rides in a transaction of history. Whoever
listens also polls, and looks when the connection was away. Messages (`outbox.py`, `messages.py`) are stored in an
unlogged table and announced the same way, at most once.
"""
