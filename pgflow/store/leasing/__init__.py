"""Who may write for a run: claims, leases, and the numbers that fence off whoever lost them.

A worker's row in `workers` is its lease. A run's row in `runs` names the worker that holds it and its epoch, which
grows with each claim.

    worker:  registered --heartbeats--> registered --release--> gone
                 '-- no heartbeat until `expires_at`, or its session lock is missing at two looks --> dead
                                                                            --recovery--> its runs are free, it is gone
    run:     free and due --claim: epoch + 1--> held --suspended, ended, handed back, recovered--> free, or gone
    number:  one --a connection was lost--> in doubt --one transaction--> another; or behind: the lease is lost

`claims.py` takes runs, hundreds at a time, with the history that a replay needs. `lease_thread.py` sends heartbeats
from a thread, so that code which blocks the event loop does not cost the lease. `leases.py` registers, and recovers
what the dead held. `fencing.py` moves the number.
"""
