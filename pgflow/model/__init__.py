"""Plain data that crosses floors: nothing here does anything, and a test can build all of it by hand.

What passes between a run and the store, which know nothing of each other:

    store --Claimed: the workflow with its history--> run --Write: rows, perhaps an outcome--> store --commit--> run
    store --Arrived: what was sent to it meanwhile--> run --Advance, Crossing, Inquiry-------> store --answer--> run

    rows.py       a row of history, a signal, a message, and the key by which a run's writes are fenced
    folding.py    how the writes of one location become one row
    claimed.py    what a claim brings, and what arrives later
    writes.py     what a run hands over, with the calls that are made when it is done or refused
    outcomes.py   how a run leaves: suspended, completed, failed, cancelled, released
    commands.py   what is asked of workflows, by clients and by other workflows, and the answers
    info.py       what clients show to people
    moments.py    which moments Python, the database and the clocks can all hold
"""
