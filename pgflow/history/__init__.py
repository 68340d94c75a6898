"""Where a step stands, what history holds of it, and which row it meets. Pure: no I/O, no clock, no database.

Locations (`location.py`) are paths of numbers with room between any two, stored so that their text sorts in the order
of execution. A workflow's rows are indexed once (`events.py`). The cursor (`cursor.py`) walks the rows of one body in
step with the code. When the code calls a step, the next row decides:

    no row is left                 --> new
    the same kind, name, version   --> its own: the step is replayed
    a row of a lower version       --> an insertion, with a location before that row
    anything else                  --> diverged: the workflow fails, and nothing is written

All of what replay does about changed code follows from these four lines.
"""
