"""The SQLSTATEs that decide whether a statement is sent again, and what each of them means for that."""

from __future__ import annotations

CONFLICT = ("40001", "40P01")
"""A serialization failure and a deadlock: the same statement, sent again, may pass."""

PASSING = ("08", "57P", "53300", *CONFLICT)
"""The first characters of errors that another try may mend: lost connections, servers that stop or start, too many
connections, and conflicts.
"""

DATA = ("22", "23", "54")
"""Classes of errors that are about the data itself, which another try does not mend: data exceptions, integrity
violations, exceeded limits.
"""

FENCED_OUT = "22012"
"""A division by zero: how a statement of ours ends when the worker does not hold the lease any more."""
