"""The floor: the least that a single process can do for the same rows in the same batches with the same durability.

A bare asyncio loop over psycopg. It claims runs under a new epoch, lets each workflow's coroutine take its steps,
writes the steps of all workflows that finished one meanwhile in one statement that is fenced by each run's epoch, and
completes them. No replay, no retries, no codecs, no timeouts, no signals, no leases: whatever an engine does costs more
than this.
"""
