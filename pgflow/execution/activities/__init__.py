"""The attempts of activities: where they run, what they are given, what they leave.

An attempt knows nothing of history. The step that asked for it (`pgflow/execution/steps/activity.py`) is called
when it ends and decides: record the result, or park until the next attempt.

    asked for --> waits for a place --> begun --> ended: output or error --> the step records it
                       |                  |-- its timeout passes: an error like any other
                       |                  '-- cancelled, or the lease is lost: the code is told, the result is dropped
                       '-- not before the lease is certain again

    transactional:  begun --> returned --> its turn among the run's writes --> fence, row, COMMIT --> recorded
                                                       '-- refused: rolled back, a failed attempt

Async functions run as tasks of the worker's loop, plain ones in threads, transactional ones with a connection each;
each sort has a fixed number of places, and further attempts wait their turn (`runner.py`). What an attempt leaves with
the workflow, state and tags, is merged when its result is recorded (`state.py`).
"""
