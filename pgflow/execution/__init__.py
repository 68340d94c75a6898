"""A workflow's code over its history: all that happens from a claim until the workflow leaves memory.

There is no SQL and no connection here. What a run wants written or asked goes through `pgflow.ports`, which the store
implements; what it needs of its process (time, timers, attempts) it asks of its `Host`, which the worker
implements. The unit tests of replay run all of this on lists.

    execute.py       a claim becomes a run
    context.py       what the code is given; each of its methods makes a step
    event_loop/      the event loop on which the code runs
    engine/          the run, its scopes, and the order in which results reach the code
    steps/           one file for each kind of step
    activities/      the attempts of activities

A run, as its worker sees it:

    claimed --execute--> pumped --> at rest --+-- something is in flight --> waits, and is pumped again
                           ^                  |-- only moments and events are awaited --> suspended
                           |                  |-- the body has returned or raised --> completed, failed, cancelled
                           |                  '-- the worker stops --> released
                           '-- claimed again while still in memory --- suspended

    at any moment: the lease is lost --> discarded, and nothing is written
"""
