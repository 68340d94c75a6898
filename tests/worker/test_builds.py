"""Builds: which of two is newer, and what workers of an older one leave to those of a newer one. About 15 seconds."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import cmp_to_key
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import pgflow
from pgflow.cli import main
from pgflow.model.builds import build_order
from pgflow.store.leasing import claims
from pgflow.store.leasing.newer_builds import claim_that_waits, left_to_newer
from tests.store.scene import Scene
from tests.store.test_plans import nodes
from tests.waiting import until
from tests.worker import builds
from tests.worker.builds import begun, go_on

ROOT = Path(__file__).parent.parent.parent
LEAVES, LEFT = "workers of a newer build serve ", "no worker of a newer build serves what this one does any more"


def worker(scene: Scene, name: str, build: str | None, **more: Any) -> pgflow.Worker:
    given = {"workflows": builds.ALL, **more}
    return pgflow.Worker(scene.database.dsn, build=build, objects=[builds.Mark(name)], **given)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What is left is left for ever, unless a test says otherwise."""
    caplog.set_level("INFO", "pgflow.worker")
    monkeypatch.setattr(claims, "WAIT", 3600.0)


async def logged(caplog: pytest.LogCaptureFixture, text: str, times: int = 1) -> None:
    await until(lambda: caplog.text.count(text) >= times, f"{text!r} in the log")


VERSION = st.lists(
    st.one_of(st.integers(0, 20).map(str), st.sampled_from(["rc", "a", "Beta", "0007", "v"])), min_size=1, max_size=5
).flatmap(lambda parts: st.sampled_from(".-_+").map(lambda sign: sign.join(parts)))


def compared(one: str, other: str) -> int:
    """The rule, as it is written."""

    def parts(build: str) -> list[tuple[int, Any]]:
        found = re.findall(r"[0-9]+|[a-z]+", build.lower())
        if len(found) > 1 and found[0] == "v" and found[1].isdigit():
            del found[0]
        return [(2, int(part)) if part.isdigit() else (0, part) for part in found] + [(1, "")]

    return (parts(one) > parts(other)) - (parts(one) < parts(other))


@settings(max_examples=300, deadline=None)
@given(st.lists(VERSION, min_size=2, max_size=6))
def test_builds_are_compared_as_version_numbers(versions: list[str]) -> None:
    by_rule = sorted(versions, key=cmp_to_key(compared))
    by_text = sorted(versions, key=build_order)
    assert all(compared(one, other) == 0 for one, other in zip(by_rule, by_text, strict=True))
    for one in versions:
        assert (build_order(one) == build_order(versions[0])) == (compared(one, versions[0]) == 0)


def test_the_database_compares_them_the_same(scene: Scene) -> None:
    ascending = [
        "beta",
        "1.0-alpha",
        "1.0-rc1",
        "1.0-rc2",
        "1.0-rcx",
        "1.0",
        "1.0.0",
        "1.0.1",
        "v1.9",
        "1.10",
        "2026.11.30",
    ]
    ascending += ["2026.11.30-1", "2026.11.30-2", "2026.11.30-10", "2026.12.1", "1" + "0" * 150]
    for number, one in enumerate(ascending):
        scene.do(
            "INSERT INTO workers (host, pid, version, queues, expires_at, build, build_order) VALUES "
            "('h', %s, '', '{}', now(), %s, %s)",
            number,
            one,
            build_order(one),
        )
    assert scene.all("SELECT build FROM workers ORDER BY build_order") == ascending


@pytest.mark.parametrize("build", ["", "---", "a\nb", "x" * 201, 7])
def test_what_is_no_build(build: Any) -> None:
    with pytest.raises(ValueError, match="build="):
        pgflow.Worker("host=/nowhere", workflows=builds.ALL, build=build)


async def test_work_goes_to_the_newer_build(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever was there first; one that says no build is older than any."""
    async with worker(scene, "none", None), worker(scene, "old", "2026.9.30"), worker(scene, "new", "2026.10.1"):
        await logged(caplog, LEAVES, 2)
        handles = [await client.dispatch(builds.asked) for _ in range(20)]
        assert {await handle.output(timeout=60) for handle in handles} == {"new"}
    assert caplog.text.count(LEAVES) == 2


async def test_by_name_and_queue(scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture) -> None:
    """What the newer one does not know, or does not serve, the older one takes as ever."""
    old = worker(scene, "old", "1", queues=["default", "slow"])
    async with old, worker(scene, "new", "2", workflows=[builds.asked]):
        await logged(caplog, LEAVES)
        assert await (await client.dispatch(builds.other)).output(timeout=60) == "old"
        assert await (await client.dispatch(builds.asked.options(queue="slow"))).output(timeout=60) == "old"
        assert await (await client.dispatch(builds.asked)).output(timeout=60) == "new"


def test_pairs() -> None:
    newer = [(["a"], ["x"]), (["b", "c"], ["y"])]
    assert left_to_newer(newer, ["a", "b"], ["x", "y", "z"]) == {("a", "x"), ("b", "y")}


async def test_what_is_left_for_too_long_is_taken(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer worker that is full holds nothing up. By the database's clock, from when it was due."""
    monkeypatch.setattr(claims, "WAIT", 0.7)
    async with worker(scene, "new", "2", concurrency=1):
        held = await client.dispatch(builds.staying, "full")
        await until(lambda: "full" in begun, "the newer one's work")
        async with worker(scene, "old", "1"):
            await logged(caplog, LEAVES)
            handles = [await client.dispatch(builds.asked.options(priority=number)) for number in range(3)]
            assert [await handle.output(timeout=60) for handle in handles] == ["old"] * 3
        waited = (
            "SELECT min(e.created_at - w.created_at) > interval '0.7 s' FROM events AS e JOIN workflows AS w ON w.id = "
        )
        assert scene.one(waited + "e.workflow_id WHERE w.name = 'asked'")
        go_on.add("full")
        assert (await held.output(timeout=60))[0] == "new"


async def test_what_is_held_goes_on_until_its_next_sleep(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(scene, "old", "1"):
        handle = await client.dispatch(builds.staying, "held")
        await until(lambda: "held" in begun, "the older one's work")
        async with worker(scene, "new", "2"):
            await logged(caplog, LEAVES)
            go_on.add("held")
            assert await handle.output(timeout=60) == ["old", "old", "new"]


async def test_one_that_starts_beside_a_newer_one_takes_nothing_before_it_knows(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(scene, "new", "2", concurrency=1):
        held = await client.dispatch(builds.staying, "starts")
        await until(lambda: "starts" in begun, "the newer one's work")
        due = await client.dispatch(builds.asked)
        async with worker(scene, "old", "1", poll=0.05):
            await logged(caplog, LEAVES)
            later = await client.dispatch(builds.asked)
            go_on.add("starts")
            assert [await due.output(timeout=60), await later.output(timeout=60)] == ["new", "new"]
            assert (await held.output(timeout=60))[0] == "new"


async def test_when_the_newer_one_is_gone(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(scene, "old", "1"):
        async with worker(scene, "new", "2"):
            await logged(caplog, LEAVES)
        handle = await client.dispatch(builds.asked)
        assert await handle.output(timeout=60) == "old"
    assert LEFT in caplog.text


async def test_a_build_whose_workers_die_goes_before_nobody(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice within a minute. One that was only stopped, or that comes back, has not died."""
    async with worker(scene, "old", "1") as old:
        async with worker(scene, "new", "2"):
            await logged(caplog, LEAVES)
        await logged(caplog, LEFT)
        assert scene.all("SELECT worker_id FROM deaths") == []
        for number in (1, 2):
            await died(scene)
            await until(lambda: scene.one("SELECT count(*) FROM deaths") == number, "the deaths")  # noqa: B023
        assert scene.all("SELECT build FROM deaths") == ["2", "2"]
        async with worker(scene, "new", "2") as new:
            handles = [await client.dispatch(builds.staying, "deaths") for _ in range(2)]
            await until(lambda: begun.count("deaths") == 2, "the work")
            assert caplog.text.count(LEAVES) == 1
            assert old.id is not None and new.id is not None
            scene.do("UPDATE deaths SET died_at = died_at - interval '1 minute'")
            await logged(caplog, LEAVES, 2)
            go_on.add("deaths")
            assert {(await handle.output(timeout=60))[-1] for handle in handles} == {"new"}


async def died(scene: Scene) -> None:
    """A worker process of build 2 is killed."""
    command = [sys.executable, "cli.py", "worker", "tests.worker.builds:asked", "--queue", "of its own", "--build", "2"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PGFLOW_DATABASE_URL": scene.database.dsn})
    try:
        await until(lambda: scene.all("SELECT id FROM workers WHERE pid = %s", process.pid), "the process")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


async def test_its_number_may_move(scene: Scene) -> None:
    """What it says of itself goes with it."""
    said = "SELECT build, build_order, names, concurrency FROM workers"
    async with worker(scene, "new", "2", concurrency=7) as made:
        before = scene.all(said)
        assert [(one[0], one[2], one[3]) for one in before] == [("2", ["asked", "other", "staying"], 7)]
        moved = {"numbers": [made.id], "number": 7, "kept": [], "unknown": []}
        scene.sql.execute(scene.database.statement("fence_move"), moved)
        assert scene.all("SELECT id FROM workers") == [7] and scene.all(said) == before
        moved = {"numbers": [7], "number": made.id, "kept": [], "unknown": []}
        scene.sql.execute(scene.database.statement("fence_move"), moved)


def test_the_claim_that_waits_is_planned_as_the_usual_one(scene: Scene) -> None:
    """And the usual one is as it was: nothing of this is in it."""
    usual = scene.database.statement("claim")
    assert b"%(waits)s" not in usual and b"levels.wait" not in usual

    def plan(text: bytes) -> list[Any]:
        places: list[str] = []

        def place(found: re.Match[str]) -> str:
            if found[1] not in places:
                places.append(found[1])
            return f"${places.index(found[1]) + 1}"

        query = re.sub(r"%\((\w+)\)s", place, text.decode())
        scene.do(f"PREPARE asked_{len(places)} AS {query}")
        scene.do("SET plan_cache_mode = force_generic_plan")
        (found,) = scene.all(f"EXPLAIN (FORMAT JSON) EXECUTE asked_{len(places)} ({', '.join(['NULL'] * len(places))})")
        tree = found if isinstance(found, list) else json.loads(found)
        return [(node.get("Index Name"), "Index Cond" in node) for node, _ in nodes(tree) if "Index Name" in node]

    assert plan(claim_that_waits(usual)) == plan(usual)


async def test_they_are_listed(scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture) -> None:
    dsn = scene.database.dsn
    scene.do(
        "INSERT INTO workers (host, pid, version, queues, expires_at) VALUES ('h', 7, '0.1', '{q}', now() + '1 h')"
    )
    async with worker(scene, "old", "1.9", queues=["a", "q"]), worker(scene, "new", "1.10", concurrency=5):
        await client.dispatch(builds.staying, "listed")
        await until(lambda: "listed" in begun, "the work")
        found = await client.workers()
        assert [(one.build, one.queues, one.held, one.concurrency, one.alive) for one in found] == [
            ("1.10", ["default"], 1, 5, True),
            ("1.9", ["a", "q"], 0, 1000, True),
            (None, ["q"], 0, None, True),
        ]
        assert [one.build for one in await client.workers(queue="q", limit=1)] == ["1.9"]
        with pgflow.SyncClient(dsn) as sync:
            assert [one.id for one in sync.workers()] == [one.id for one in found]
        for bad in ({"queue": ""}, {"limit": -1}):
            with pytest.raises(ValueError):
                await client.workers(**bad)

        def said(*arguments: str) -> str:
            result = CliRunner().invoke(main, ["workers", "--dsn", dsn, *arguments], prog_name="pgflow")
            assert result.exit_code == 0, result.output
            return result.output

        first, second, third = said().splitlines()[1:]
        assert "1.10" in first and "1 of 5" in first and f"{os.getpid()} on " in first
        assert "1.9" in second and "a, q" in second and "7 on h" in third
        assert [one["build"] for one in json.loads(said("--json"))] == ["1.10", "1.9", None]
        assert json.loads(said("--json", "--queue", "q"))[0]["held"] == 0
        go_on.add("listed")
    scene.do("DELETE FROM workers")
    assert CliRunner().invoke(main, ["workers", "--dsn", dsn, "--json", "--watch"]).exit_code == 2
