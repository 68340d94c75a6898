"""Every SQL statement and every connection. Execution is its sister: neither imports the other.

    database/   how connections are opened, what travels on them, how they are lost and opened again
    schema/     the tables, their migrations, and whether a schema and this code go together
    journal/    what runs write
    leasing/    who may write
    exchange/   what workflows do to each other
    notify/     what shortens a wait
    client/     what clients do their work with
    queries/    one statement for each thing that a client or an operator asks
    sql/        the statements, one a file, so that a DBA can read them

The status of a workflow that may go on, a column of its row in `runs`, and what moves it:

    pending --claim--> running --its outcome is written--+--> sleeping --delivery, or `wake_at`--> claimed again
       ^                  |                              |--> paused --resume, cancel--> pending
       |                  |                              |--> failed --retry--> pending
       |                  |                              '--> the row is gone; `workflows` says completed or cancelled
       '--handed back, or its worker is dead--'

Rules that all of it keeps: a worker's write is fenced, in the statement that writes, by the worker's number and the
run's epoch. Runs are locked first, in the order of their ids, and nobody waits for a stranger's lock. Transactions are
short. Times are the database's. A statement is for many rows. What was sent twice is done once. `docs/safety.md` has
the test of each.
"""
