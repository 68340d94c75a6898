"""What clients do their work with: connections, the ends that callers wait for, subscriptions.

A caller that waits for the end of a workflow:

    waits --notification: it has ended--> looked at, with all others that wait --> answered
       '-- nothing heard: looked at now and then, seldom while notifications come -------^

All that both clients have is written once, for an event loop, and generated for threads (`sync/`, by
`scripts/sync_twins.py`), or has no I/O (`endings.py`, `topics.py`, `recent.py`). What an event loop and threads do
differently has the same names in `on_loop.py` and `on_threads.py`. Waiting for ends differs in kind
(`endings_by_task.py`: one task looks for all; `endings_by_turns.py`: threads take turns at reading, so that the thread
that reads gets its own answer with no other thread in between).
"""
