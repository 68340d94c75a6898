"""What clients do their work with: connections, the ends that callers wait for, subscriptions.

A caller that waits for the end of a workflow:

    waits --notification: it has ended--> looked at, with all others that wait --> answered
       '-- nothing heard: looked at now and then, seldom while notifications come -------^

Where the asynchronous and the synchronous client differ in kind, each has a file of its own (`endings_by_task.py`: one
task looks for all; `endings_by_turns.py`: threads take turns at reading). What both share has no I/O (`endings.py`,
`topics.py`, `recent.py`). The rest of `sync/` is generated.
"""
