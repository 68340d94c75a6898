"""The worker: a process that claims workflows, runs them, keeps its lease, and hands back what it holds at its end.

    started --schema fits--> registered: a session --stop--> claims nothing more, activities end within the grace period
                                 |    ^                              --> everything handed back --> released --> ended
                                 |    '-- registers anew --+
                                 '-- the lease is lost: everything is dropped, nothing is written

On the event loop: the claimer takes what is due, the scheduler pumps runs in slices of time, the deliverer hands
signals over, and the store's tasks write, advance loops, send and listen. In threads: the heartbeat, which a blocked
event loop does not stop; the watchdog, which names and ends what blocks it; plain activities.

    worker.py     start, sessions one after the other, end
    session.py    one registration and all that is bound to it; the `Host` of its runs
    claimer.py    when to ask for work, and for how much; `suspects.py`: for what may kill the process
    scheduler.py  which run is pumped next
    deliverer.py  signals and requests for runs in memory
    run_cache.py  sleeping runs that go on without a replay
"""
