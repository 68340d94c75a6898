"""One port for all the processes of `pgflow worker --processes`. Real processes; about 8 seconds."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import pgflow
from tests.observe.scraping import Scrape, free_port, get, scrape, status
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import let_go_on, marked, worker_process


@pytest.fixture
def scene(dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(dsn)
    scene.do(flows.MARKS)
    monkeypatch.setenv(flows.VARIABLE, dsn)
    monkeypatch.setenv("PGFLOW_TEST_LOGS", str(tmp_path))
    yield scene
    scene.close()


def up(found: Scrape) -> dict[str, float]:
    return {one.labels["process"]: one.value for one in found.all("pgflow_process_up")}


async def test_several_processes_at_one_port(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("PGFLOW_METRICS_PORT", str(port))
    monkeypatch.setenv("PGFLOW_METRICS_HOST", "127.0.0.1")

    async def reached(path: str, wanted: int) -> bool:
        return await status(port, path) == wanted

    with worker_process(scene, "--processes", "2", "--lease", "3600", "--grace", "60") as worker:
        await until(lambda: reached("/livez", 200), "the port, before anybody is ready")
        await until(lambda: reached("/readyz", 200), "both processes")
        async with pgflow.Client(scene.database.dsn) as client:
            handles = [await client.dispatch(flows.sums, number) for number in range(40)]
            assert await asyncio.gather(*[handle.output(60) for handle in handles]) == [
                (number + 1) * 10 for number in range(40)
            ]

            async def counted() -> bool:
                return (await scrape(port)).sum("pgflow_workflows_ended_total") == 40

            await until(counted, "all of them, in the counters of both processes together")
            found = await scrape(port)
            assert found.sum("pgflow_steps_total", kind="activity") == 80
            of_the_other = found.sum("pgflow_steps_total", process="1")
            assert up(found) == {"0": 1, "1": 1} and found.sum("pgflow_process_restarts_total") == 0
            children = sorted(psutil.Process(worker.pid).children(), key=lambda child: child.create_time())
            first = children[0].pid

            # Stopped: it is there and does not answer. That is for whoever restarts the container to know.
            os.kill(first, signal.SIGSTOP)
            await until(lambda: reached("/livez", 503), "all of its threads have stopped")
            code, said = await get(port, "/livez")
            assert code == 503 and said == "process 0 does not answer\n"
            found = await scrape(port)
            assert up(found) == {"0": 0, "1": 1} and not found.all("pgflow_runs", process="0")

            # Killed: nothing of it is left, and the next one begins at zero.
            os.kill(first, signal.SIGKILL)
            await until(lambda: f"worker process {first} ended with -9" in worker.log, "the death")
            found = await scrape(port)
            assert not found.all("pgflow_flush_rows_count", process="0") and up(found)["1"] == 1
            assert await status(port, "/livez") == 200
            await until(lambda: reached("/readyz", 200), "the next process")
            found = await scrape(port)
            assert up(found) == {"0": 1, "1": 1} and found.sum("pgflow_process_restarts_total", process="0") == 1
            assert found.sum("pgflow_steps_total", process="0") == 0
            assert found.sum("pgflow_steps_total", process="1") == of_the_other

            # Draining: alive, and not ready.
            await client.dispatch(flows.holding, "work")
            await marked(scene, "work begins")
            worker.send(signal.SIGTERM)
            await until(lambda: reached("/readyz", 503), "the stop")
            assert (await get(port, "/readyz"))[1].startswith("it is being stopped")
            assert await status(port, "/livez") == 200
            let_go_on(scene, "work")
        assert await worker.ended() == 0, worker.log
    assert await status(port, "/metrics") == 0


async def test_a_port_that_is_taken(scene: Scene) -> None:
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = other.getsockname()[1]
        with worker_process(scene, "--processes", "2", "--metrics-port", str(port)) as worker:
            assert await worker.ended() == 1
            assert re.search(f"the metrics port {port} at 0.0.0.0 cannot be opened: Address already in use", worker.log)
            assert "PGFLOW_METRICS_PORT" in worker.log and "Traceback" not in worker.log
    assert scene.one("SELECT count(*) FROM workers") == 0
