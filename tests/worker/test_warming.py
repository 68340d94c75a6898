"""A worker has what it needs for its first workflow before it begins. About 2 seconds."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import dataclasses, sys
import pgflow
from pgflow.codec import decode
from tests.worker import flows

@dataclasses.dataclass
class Order:
    number: int

worker = pgflow.Worker("postgresql://nowhere", workflows=[flows.sums])
before = set(sys.modules)
assert decode('{"number": 7}', Order, what="an order") == Order(7)
print(sorted(set(sys.modules) - before))
"""


def test_the_first_conversion_loads_nothing_more() -> None:
    """In a process of its own, since another test may have converted something before."""
    told = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
