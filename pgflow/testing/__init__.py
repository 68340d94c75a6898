"""What users test their workflows with.

`run` runs a workflow in memory, in no time. `replay` runs today's code over a stored history and changes nothing: does
the code still fit what has been recorded?
"""

from pgflow.history.stored import StoredHistory
from pgflow.testing.replaying import Replayed, replay
from pgflow.testing.running import Ran, run

__all__ = ["Ran", "Replayed", "StoredHistory", "replay", "run"]
