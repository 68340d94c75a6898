"""A worker in a process of its own that kills itself at a fault point.

    python -m tests.crashing DSN MODULE POINT PASSING

It runs the workflows of `MODULE.WORKFLOWS` and dies by SIGKILL when it passes POINT for the PASSING-th time.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys

import pgflow
from pgflow import faults


async def until_killed(dsn: str, module: str, point: str, passing: int = 1) -> None:
    """Run such a worker until it is dead."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crashing", dsn, module, point, str(passing)
    )
    try:
        async with asyncio.timeout(60):
            assert await process.wait() == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()


def main(dsn: str, module: str, point: str, passing: str) -> None:
    """Be that worker."""
    left = int(passing)

    def pass_by() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with faults.install({point: pass_by}):
        workflows = importlib.import_module(module).WORKFLOWS
        asyncio.run(pgflow.Worker(dsn, workflows=workflows).run())


if __name__ == "__main__":
    main(*sys.argv[1:])
