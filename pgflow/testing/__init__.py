"""What users test their workflows with: `run` in memory, in no time; `replay` over a stored history.

    run:     dispatched --> executed to rest --> something is due, or a signal waits: time jumps there; the run is given
             up and replayed --> ... --> ended, or nothing is left to come
    replay:  the stored history --> the code gets the recorded results in the recorded order --> fits, and where it
             would go on; or diverged, with the place, what was expected and what was found

Neither needs a database. `memory.py` and its parts are one in memory, whose methods correspond to the transactions of
the real store; the simulator of the engine's own tests is a layer over it.
"""

from pgflow.history.stored import StoredHistory
from pgflow.testing.replaying import Replayed, replay
from pgflow.testing.running import Ran, run

__all__ = ["Ran", "Replayed", "StoredHistory", "replay", "run"]
