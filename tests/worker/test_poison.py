"""What ends its process is found and fails; workflows that shared the process complete."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import pgflow
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows as held_by
from tests.worker import nursery as flows
from tests.worker.nursery import nursery
from tests.worker.processes import let_go_on, marked, marks, worker_process

PATIENT = 100.0


def epochs(scene: Scene, name: str) -> int:
    """How many times more than once workflows of this name were claimed, as their worst: their runs are
    gone by then.
    """
    return int(scene.one("SELECT coalesce(max(epoch), 0) FROM public.claimed WHERE name = %s", name))


@pytest.fixture
def claimed(scene: Scene) -> None:
    """Keep the last epoch of each run, for when the run is gone."""
    scene.do(
        "CREATE TABLE public.claimed (id uuid PRIMARY KEY, name text, epoch int);CREATE FUNCTION public.keep() "
        "RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.claimed VALUES (OLD.workflow_id, OLD.name, "
        "OLD.epoch) ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch;RETURN OLD; END $$;CREATE TRIGGER keep "
        "BEFORE DELETE ON runs FOR EACH ROW EXECUTE FUNCTION public.keep()"
    )


@pytest.mark.parametrize("kind", ["crash", "crash_in_thread", "crash_in_transaction", "tells_and_crashes"])
async def test_each_death_is_an_attempt_of_the_activity_in_flight(
    scene: Scene, client: pgflow.Client, kind: str
) -> None:
    handle = await client.dispatch(flows.poison, kind, {})
    with nursery(scene) as workers:
        told = await handle.output(PATIENT)
    assert told.startswith("2 attempts, WorkerCrashed: the process of worker"), told
    assert "died while this attempt was under way" in told
    assert workers.deaths == 2
    assert [attempt for _, _, attempt in marks(scene)] == [1, 2]
    (event,) = await client.history(handle.id)
    assert (event.status, event.attempts) == ("failed", 2)


async def test_where_locks_are_not_to_be_had_deaths_are_counted_one_late(scene: Scene, client: pgflow.Client) -> None:
    """A lease that ran out may be that of a process that lives."""
    handle = await client.dispatch(flows.poison, "crash", {})
    with nursery(scene, lease=1.0, locks=False) as workers:
        assert (await handle.output(PATIENT)).startswith("2 attempts, WorkerCrashed")
    assert workers.deaths == 3


async def test_an_activity_of_one_attempt_is_not_begun_again(scene: Scene, client: pgflow.Client) -> None:
    handle = await client.dispatch(flows.poison, "crash_once", {})
    with nursery(scene):
        assert (await handle.output(PATIENT)).startswith("1 attempts, WorkerCrashed")
    assert len(marks(scene)) == 1


async def test_a_death_counts_though_another_follows_before_it_is_counted(scene: Scene, client: pgflow.Client) -> None:
    handle = await client.dispatch(flows.killed_while_it_replays)
    with nursery(scene) as workers:
        assert await handle.output(PATIENT) == "1 attempts, WorkerCrashed"
    assert (workers.deaths, len(marks(scene))) == (2, 1)


async def test_an_attempt_that_survives_completes(scene: Scene, client: pgflow.Client) -> None:
    handle = await client.dispatch(flows.poison, "crash", {"survives": 2})
    with nursery(scene) as workers:
        assert await handle.output(PATIENT) == "attempt 2"
    assert workers.deaths == 1
    assert [event.attempts for event in await client.history(handle.id)] == [2]


@pytest.mark.usefixtures("claimed")
async def test_neighbours_of_the_guilty_complete(scene: Scene, client: pgflow.Client) -> None:
    """Their activities need longer than the guilty ones leave them: together they would never come to an end."""
    guilty = 2
    poisons = [await client.dispatch(flows.poison, "crash", {"after": 0.05}) for _ in range(guilty)]
    innocents = await client.dispatch_many(flows.innocent, [{"seconds": 0.25}] * 30)
    with nursery(scene) as workers:
        for handle in poisons:
            assert (await handle.output(PATIENT)).startswith("2 attempts, WorkerCrashed")
        assert [await handle.output(PATIENT) for handle in innocents] == [1] * 30
    # Each up to three times among others, until it runs alone; then as often as it has attempts.
    assert workers.deaths <= (3 + 2) * guilty
    assert epochs(scene, "innocent") <= (3 + 2) * guilty + 1


async def test_two_processes_and_work_that_keeps_coming(scene: Scene, client: pgflow.Client) -> None:
    """Nobody is ever idle: the guilty one is taken all the same, and alone."""
    guilty = await client.dispatch(flows.poison, "crash", {"after": 0.3})
    with nursery(scene, 2) as workers:
        for _ in range(400):
            handles = await client.dispatch_many(flows.innocent, [{"seconds": 0.3}] * 10)
            assert [await handle.output(PATIENT) for handle in handles] == [1] * 10
            if (await guilty.info()).status == "completed":
                break
        assert (await guilty.output(PATIENT)).startswith("2 attempts, WorkerCrashed")
    assert workers.deaths <= 9


async def test_a_guilty_child_fails_and_its_parent_goes_on(scene: Scene, client: pgflow.Client) -> None:
    handle = await client.dispatch(flows.family)
    with nursery(scene):
        assert (await handle.output(PATIENT)).startswith("child: 2 attempts, WorkerCrashed")


async def test_what_has_ended_beside_the_guilty_activity_is_kept(scene: Scene, client: pgflow.Client) -> None:
    handle = await client.dispatch(flows.gathers)
    with nursery(scene):
        assert await handle.output(PATIENT) == ["int", "ActivityFailed"]
    assert [(e.name, e.attempts) for e in await client.history(handle.id)] == [("work", 1), ("crash", 2)]


async def test_code_that_ends_its_process_fails_its_workflow(
    scene: Scene, client: pgflow.Client, tmp_path: Path
) -> None:
    handle = await client.dispatch(flows.crashing_code)
    with nursery(scene) as workers:
        with pytest.raises(pgflow.WorkflowFailed, match="WorkerCrashed: .*died 5 times") as caught:
            await handle.output(PATIENT)
        assert caught.value.error_type == "WorkerCrashed"
        assert workers.deaths == 5
    with nursery(scene, max_crashes=2) as workers:
        # A retry begins the count anew.
        await client.retry(handle.id)
        with pytest.raises(pgflow.WorkflowFailed, match="died 2 times"):
            await handle.output(PATIENT)
        assert workers.deaths == 2
        (tmp_path / "mended").touch()
        await client.retry(handle.id)
        assert await handle.output(PATIENT) == "mended"


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(pgflow.WorkerCrashed("gone")))
    assert isinstance(error, pgflow.PgflowError) and str(error) == "gone"


async def test_a_lease_that_is_lost_and_comes_back_counts_nothing(scene: Scene, client: pgflow.Client) -> None:
    handle = await client.dispatch(held_by.holding, "work")
    with worker_process(scene, "--lease", "2") as zombie, ExitStack() as stack:
        await marked(scene, "work begins")
        zombie.send(signal.SIGSTOP)
        stack.enter_context(worker_process(scene, "--lease", "60"))
        await marked(scene, "work begins", times=2)
        assert scene.one("SELECT cardinality(suspicions) FROM runs") == 1, "for all that anybody can tell"
        zombie.send(signal.SIGCONT)
        await until(
            lambda: scene.one("SELECT suspicions IS NULL AND crashes IS NULL AND presumed IS NULL FROM runs"),
            "the return",
        )
        let_go_on(scene, "work")
        assert await handle.output(PATIENT) == "work of attempt 1"


async def test_a_supervisor_starts_processes_again(scene: Scene, client: pgflow.Client) -> None:
    guilty = await client.dispatch(flows.poison, "crash", {})
    innocents = await client.dispatch_many(flows.innocent, [{"seconds": 0.1}] * 5)
    command = [sys.executable, "cli.py", "worker", "tests.worker.nursery:ALL", "--processes", "2"]
    supervisor = subprocess.Popen(command, cwd=flows.ROOT, env={**os.environ, held_by.VARIABLE: scene.database.dsn})
    try:
        assert (await guilty.output(PATIENT)).startswith("2 attempts, WorkerCrashed")
        assert [await handle.output(PATIENT) for handle in innocents] == [1] * 5
        assert supervisor.poll() is None
    finally:
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait() == 0
