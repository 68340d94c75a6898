"""Thousands of random interleavings: loops that run, forget and are taken over, all at once, at every speed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from pgflow import faults
from pgflow.errors import LeaseLost
from pgflow.history.location import decode_coordinate, turn
from pgflow.model.rows import EventRow, RunKey
from pgflow.model.writes import Advance, Write
from pgflow.store.journal.forgetting import LoopAdvancer
from pgflow.store.journal.journal import Journal
from tests.store.scene import Scene, loop_row, row

POINTS = (
    "loops.before",
    "loops.after_progress",
    "loops.after_move",
    "loops.after_trim",
    "loops.before_commit",
)
ROWS = 4
"""Rows of one turn."""


def turn_rows(index: int) -> list[EventRow]:
    at = turn("1", index)
    return [
        row(f"{at},1", str(index), iteration=index, turn_state=str(index)),
        row(f"{at},2", str(index), iteration=index),
        row(f"{at},2,1", str(index), iteration=0),
        row(f"{at},3,a10,1", str(index), iteration=9),
    ]


@dataclass
class Loop:
    """One workflow with one loop, and who owns it."""

    workflow: UUID
    turns: int
    interval: int
    keep: int
    epoch: int = 0
    done: bool = False
    owners: list[asyncio.Task[None]] = field(default_factory=list)


class Race:
    def __init__(self, scene: Scene, chance: random.Random) -> None:
        self.scene, self.chance = scene, chance
        self.workers = [scene.worker() for _ in range(3)]
        self.journals = [Journal(scene.database, worker) for worker in self.workers]
        self.advancers = [LoopAdvancer(scene.database, worker) for worker in self.workers]
        self.advanced = self.refused = self.takeovers = 0
        self.moved = asyncio.Event()
        self.loops: list[Loop] = []

    async def pause(self) -> None:
        if self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.random() * 0.002)

    # One owner of one loop, as the engine would go about it

    async def own(self, loop: Loop, who: int) -> None:
        try:
            await self.go_on(loop, who, loop.epoch)
        except LeaseLost:
            self.refused += 1

    async def go_on(self, loop: Loop, who: int, epoch: int) -> None:
        found = self.scene.all(
            "SELECT status, loop_progress, (SELECT max(iteration) FROM events AS t "
            "WHERE t.workflow_id = l.workflow_id AND t.location ~ '^1,[^,]+,1$') "
            "FROM events AS l WHERE workflow_id = %s AND location = '1'",
            loop.workflow,
        )
        status, progress, stored = found[0] if found else (None, None, None)
        if status == "completed":
            self.end(loop)
            return
        if progress is None:
            await self.write(loop, who, epoch, [loop_row()])
            progress = 0
        index = progress if stored is None else max(progress, stored)
        advancing: asyncio.Future[None] | None = None
        while True:
            rows = turn_rows(index)
            await asyncio.gather(self.write(loop, who, epoch, rows[:2]), self.write(loop, who, epoch, rows[2:]))
            ended = index + 1
            if ended == loop.turns or (ended % loop.interval == 0 and ended > progress):
                if advancing is not None:
                    await advancing
                advancing = self.advance(loop, who, epoch, ended)
                progress = ended
            if ended == loop.turns:
                assert advancing is not None
                await advancing
                self.end(loop)
                return
            index = ended

    def end(self, loop: Loop) -> None:
        loop.done = True
        self.moved.set()

    async def write(self, loop: Loop, who: int, epoch: int, rows: list[EventRow]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def committed(write: Write, at: object) -> None:
            future.set_result(None)

        def refused(write: Write, error: BaseException) -> None:
            future.set_exception(error)

        self.journals[who].write(Write(RunKey(str(loop.workflow), epoch), rows, None, committed, refused))
        await future

    def advance(self, loop: Loop, who: int, epoch: int, turns: int) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.exception())

        def committed(advance: Advance, at: object) -> None:
            self.advanced += 1
            self.moved.set()
            future.set_result(None)

        def refused(advance: Advance, error: BaseException) -> None:
            future.set_exception(error)

        breaks = turns == loop.turns
        self.advancers[who].advance(
            Advance(
                loop.workflow,
                epoch,
                "1",
                turns,
                str(turns),
                loop.keep,
                '"over"' if breaks else None,
                1 if breaks else None,
                committed,
                refused,
            )
        )
        return future

    # What disturbs them

    async def take_over(self, loop: Loop) -> None:
        """Another worker has the lease from now on; the old owner does not know and goes on."""
        who = self.chance.randrange(len(self.workers))
        loop.epoch += 1
        connection = await self.scene.database.connect("thief")
        async with connection:
            await connection.execute(
                b"UPDATE pgflow.runs SET worker_id = %s, epoch = %s WHERE workflow_id = %s",
                [self.workers[who], loop.epoch, loop.workflow],
            )
        self.takeovers += 1
        loop.owners.append(asyncio.create_task(self.own(loop, who)))

    async def disturb(self) -> None:
        """Take loops over at the pace at which they advance: on a busy machine they would never end otherwise."""
        awaited = 0
        while live := [loop for loop in self.loops if not loop.done]:
            awaited += self.chance.randint(0, 12)
            while self.advanced < awaited and not all(loop.done for loop in self.loops):
                self.moved.clear()
                await self.moved.wait()
            await self.take_over(self.chance.choice(live))

    async def observe(self) -> None:
        """At any moment and in one snapshot, every row is where the loop's progress says."""
        while any(not loop.done for loop in self.loops):
            self.check()
            await asyncio.sleep(0.1)

    def check(self) -> None:
        found: dict[UUID, tuple[int, dict[str, list[str]]]] = {}
        for workflow, progress, forgotten, location in self.scene.all(
            "SELECT l.workflow_id, l.loop_progress, r.forgotten, r.location FROM events l LEFT JOIN ("
            "SELECT workflow_id, location, false AS forgotten FROM events WHERE location <> '1' UNION ALL "
            "SELECT workflow_id, location, true FROM forgotten_events) r USING (workflow_id) WHERE l.location = '1'"
        ):
            tables = found.setdefault(workflow, (progress, {"active": [], "forgotten": []}))[1]
            if location is not None:
                tables["forgotten" if forgotten else "active"].append(location)
        for loop in self.loops:
            if loop.workflow not in found:
                continue
            progress, tables = found[loop.workflow]
            forgotten = [int_turn(location) for location in tables["forgotten"]]
            expected = [i for i in range(max(0, progress - loop.keep), progress) for _ in range(ROWS)]
            assert sorted(forgotten) == expected, (loop, progress)
            active = {int_turn(location) for location in tables["active"]}
            assert active == set(range(progress, progress + len(active))), (loop, progress)
            assert len(set(tables["active"])) == len(tables["active"])


def int_turn(location: str) -> int:
    return decode_coordinate(location.split(",")[1])[0] - 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_random_interleavings_of_turns_takeovers_and_forgetting(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    race = Race(scene, chance)
    for journal in race.journals:
        journal.start()
    for advancer in race.advancers:
        advancer.start()
    race.loops = [
        Loop(
            scene.run(race.workers[0], epoch=0),
            chance.randint(30, 60),
            chance.choice([1, 1, 2, 5]),
            chance.choice([0, 1, 4, 100]),
        )
        for _ in range(60)
    ]
    with faults.install(dict.fromkeys(POINTS, race.pause)):
        for loop in race.loops:
            loop.owners.append(asyncio.create_task(race.own(loop, 0)))
        disturbing = asyncio.create_task(race.disturb())
        await asyncio.wait_for(race.observe(), 120)
        await disturbing
        for loop in race.loops:
            await asyncio.gather(*loop.owners)
    race.check()
    for loop in race.loops:
        assert scene.one("SELECT status, loop_progress FROM events WHERE workflow_id = %s", loop.workflow) == (
            "completed",
            loop.turns,
        )
    for journal in race.journals:
        await journal.close()
    for advancer in race.advancers:
        await advancer.close()
    assert race.advanced > 1_000
    assert race.refused > 10
    assert sum(advancer.retries for advancer in race.advancers) > 0, "nothing ever conflicted"
