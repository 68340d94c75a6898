"""What type checkers say about programs: arguments are compared with signatures, results have their types. About 10
seconds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USES = Path(__file__).with_name("uses.py")
ROOT = USES.parents[2]


def test_types() -> None:
    """An error that `uses.py` does not expect fails, and so does one that it expects and that does not come."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", "", str(USES)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (found.stdout, found.returncode) == ("", 0), found.stderr
