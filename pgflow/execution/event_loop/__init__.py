"""The event loop on which a workflow's code runs, and what asyncio's tools become on it.

A replay must take each decision as it was taken before, including those of `gather`, `TaskGroup`, `wait`, locks and
queues. So this loop is a first-in-first-out queue of callbacks and nothing else: no sockets, no timers, no threads.
What happens on it depends on the order in which results are delivered, and on nothing more.

    idle --schedule--> drained: callbacks run until none is left --> at rest --a result is delivered--> drained
                          |                    '-- frozen: the engine waits for something that the code must not see
                          '-- it does not end: found by `spinning.py`, and ended by an exception

What would change the order is replaced (`tasks.py`: tasks and futures hash by their numbers), or refused with the
name of what to write instead (`completing.py`, `generators.py`).
"""
