"""A worker in a process of its own, which may kill itself at a point of a transactional activity's commit.

PGFLOW_DATABASE_URL=... python -m tests.activities.process [POINT]
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pgflow
from pgflow import faults
from tests.activities import flows


def die() -> None:
    """As the kernel, or a power cut, would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    """Work until SIGTERM."""
    worker = pgflow.Worker(os.environ["PGFLOW_DATABASE_URL"], workflows=flows.ALL)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    with faults.install({point: die for point in sys.argv[1:]}):
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
