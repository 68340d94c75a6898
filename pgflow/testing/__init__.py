"""What users test their workflows with.

`replay` runs today's code over a stored history and changes nothing: does the code still fit what has been recorded?
"""

from pgflow.history.stored import StoredHistory
from pgflow.testing.replaying import Replayed, replay

__all__ = ["Replayed", "StoredHistory", "replay"]
