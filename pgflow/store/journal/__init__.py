"""What runs write: batches of history, turns that are forgotten, transactional activities.

    a run's rows --> Write --> waits --> [one batch in flight] --> committed --> on_commit
                                 ^                |-- the run's row is locked by somebody: with the next batch --+
                                 |                '-- not ours any more, or refused by the database: on_refused  |
                                 '--------------------------------------------------------------------------------+

`journal.py` gathers and sends, `batch.py` folds many writes into columns, `statement.py` puts the statement together
from the parts that the batch needs, `answers.py` reads what came of each run.

Two things commit apart from it, in transactions of their own: the forgetting of loops (`forgetting.py`), beside the
turns that go on, and transactional activities (`transactions.py`), in their turn among the writes of their run.
"""
