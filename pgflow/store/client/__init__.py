"""What the clients do their work with: connections, word of workflows that have ended, subscriptions.

    pool            a few connections, by which statements leave
    endings         who waits for which workflow's end: endings_by_task on an event loop, endings_by_turns in threads
    subscriptions   messages, into the inboxes of subscribers (topics)
    caller          hints within a caller's transaction, on the connection that is behind what he holds (joined)

Each is written once, for an event loop; `sync/` holds what `scripts/sync_twins.py` makes of it for threads. What cannot
be the same there stands in `on_loop` and `on_threads`, word by word. To wait for ends is not the same either: one task
can look for thousands who wait, and a thread that reads for itself has its answer without another one in between.
"""
