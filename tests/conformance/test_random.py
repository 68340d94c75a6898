"""The store in memory and PostgreSQL get the same random requests, give the same answers, and look the same afterwards.

PGFLOW_CONVERSATIONS sets how many of them there are; less than a second each.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar
from uuid import UUID

import pytest
import pytest_asyncio

from pgflow.model.commands import Dispatch, Dispatched, Sending
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome, Released, Suspended
from pgflow.model.rows import EventRow, RunKey
from pgflow.model.writes import RunChanges
from pgflow.uuid7 import uuid7
from tests.conformance.in_memory import InMemory
from tests.conformance.in_postgres import InPostgres
from tests.conformance.subject import Subject, hours
from tests.store.scene import Scene, row

T = TypeVar("T")

Ids = Iterator[UUID]

CONVERSATIONS = int(os.environ.get("PGFLOW_CONVERSATIONS", "10"))
LENGTH = 80
"""Questions of one conversation."""
WORKERS = 2
TAGS = ("{}", '{"k":1}', '{"k":1,"l":"x"}', '{"l":"x"}')
LOCATIONS = ("1", "1,1,1", "1,2,1", "1,2,1,1,1", "1,3", "1.1", "2", "a10")
NAMES = ("a", "b", "c")


@pytest_asyncio.fixture
async def pair(shared_scene: Scene) -> AsyncIterator[tuple[InMemory, InPostgres]]:
    """Both stores, with the same workers."""
    mark = uuid7().hex
    both = InMemory(mark), InPostgres(mark, shared_scene)
    for store in both:
        for _ in range(WORKERS):
            store.worker()
    yield both
    await both[1].close()


class Conversation:
    """What is asked of both stores, one question after the other."""

    def __init__(self, pair: tuple[Subject, Subject], seed: int, ids: Ids) -> None:
        self.pair = pair
        self.rng = random.Random(seed)
        self.ids = ids
        self.workflows: list[UUID] = []
        self.signals: list[UUID] = []
        self.asked: list[Any] = []
        self.runs: dict[UUID, tuple[int, RunKey]] = {}
        """Workflows that have been taken, by whom, and at which epoch: held still, or not any more."""

    async def both(self, what: str, *args: Any, **kwargs: Any) -> Any:
        """Ask both; what they say, which is the same."""
        self.asked.append((what, args, kwargs))
        answers = [comparable(await getattr(store, what)(*args, **kwargs)) for store in self.pair]
        assert answers[0] == answers[1], self.asked[-1]
        return answers[0]

    async def look(self) -> None:
        """See that both hold the same."""
        for id in self.workflows:
            pictures = [await store.picture(id) for store in self.pair]
            assert pictures[0] == pictures[1], (id, self.asked[-1])

    async def go_on(self) -> None:
        """One question."""
        kinds = {
            self.start: 2,
            self.claim: 4,
            self.write: 12,
            self.advance: 3,
            self.cross: 5,
            self.send: 3,
            self.operate: 2,
            self.deliver: 4,
            self.attend: 2,
            self.ask: 1,
            self.free: 1,
        }
        (kind,) = self.rng.choices(list(kinds), list(kinds.values()))
        await kind()

    # Whom and what it is about.

    def worker(self) -> int:
        return self.rng.randint(1, WORKERS)

    def workflow(self) -> UUID:
        known = self.rng.random() < 0.95 and self.workflows
        return self.rng.choice(self.workflows) if known else next(self.ids)

    def holder(self) -> tuple[int, RunKey] | None:
        """Who has, or had, taken a workflow, and at which epoch; sometimes one that never was."""
        if not self.runs:
            return None
        worker, run = self.rng.choice(list(self.runs.values()))
        if self.rng.random() < 0.05:
            return self.rng.choice([(3 - worker, run), (worker, run._replace(epoch=run.epoch - 1))])
        return worker, run

    def sending(self) -> Sending:
        id = self.rng.choice(self.signals) if self.signals and self.rng.random() < 0.15 else next(self.ids)
        self.signals.append(id)
        to: tuple[UUID | None, str | None, str | None] = (self.workflow(), None, None)
        if self.rng.random() < 0.3:
            to = (None, self.pair[0].name(self.rng.choice(("flow", "child"))), self.rng.choice(TAGS))
        return Sending(id, *to, self.rng.choice(NAMES), str(len(self.signals)))

    def event(self) -> EventRow:
        rng = self.rng
        location = rng.choice(LOCATIONS)
        loop = location in ("1", "1,2,1") and rng.random() < 0.9
        status = rng.choice(("pending", "pending", "completed", "completed", "failed", "cancelled", "abandoned"))
        if loop and rng.random() < 0.8:
            status = "pending"

        def some(value: T) -> T | None:
            return value if rng.random() < 0.4 else None

        return row(
            location,
            some('"out"'),
            iteration=rng.randint(0, 3),
            seq=some(rng.randint(1, 9)),
            kind="loop" if loop else rng.choice(("activity", "listen", "removed")),
            status=status,
            attempts=rng.randint(0, 3),
            input=some(f"[{rng.randint(0, 9)}]"),
            error=some('{"type":"E"}'),
            wake_at=some(hours(rng.randint(0, 5))),
            turn_state=some(str(rng.randint(0, 9))),
            turn_now=some(hours(rng.randint(0, 5))),
            turn_seq=some(rng.randint(0, 9)),
            loop_progress=rng.choice((None, 0, 0, 1, 2)) if loop else None,
            loop_state=some(str(rng.randint(0, 9))),
        )

    def outcome(self) -> Outcome | None:
        rng = self.rng
        if rng.random() < 0.6:
            return None
        asleep = Suspended(
            rng.choice((None, hours(1), hours(-(10**6)))),
            tuple(rng.sample(NAMES, rng.randint(0, 2))),
            rng.randint(0, 4),
            rng.random() < 0.5,
        )
        return rng.choice(
            (asleep, asleep, asleep, Released(), Completed('"done"'), Failed('{"type":"E"}', ("1",), "2"), Cancelled())
        )

    def run_changes(self) -> RunChanges | None:
        rng = self.rng
        if rng.random() < 0.5:
            return None
        taken = [(rng.choice(self.signals), rng.choice(LOCATIONS))] if self.signals and rng.random() < 0.4 else []
        aside = [(rng.choice(self.signals), "no")] if self.signals and not taken and rng.random() < 0.3 else []
        return RunChanges(
            taken,
            aside,
            rng.choice((None, '{"n":1}', '{"n":2}')),
            rng.choice((None, None, *TAGS)),
            rng.randint(1, 9) if rng.random() < 0.15 else None,
        )

    # Questions.

    async def start(self) -> None:
        rng = self.rng
        id = self.workflow() if rng.random() < 0.2 else next(self.ids)
        options = {"tags": rng.choice(TAGS), "unique": rng.random() < 0.5, "priority": rng.choice((0, 0, 5))}
        await self.both("start", id, run_at=rng.choice((None, None, hours(2))), **options)
        await self.known(id)

    async def known(self, id: UUID) -> None:
        """Look at it from now on, if it was started."""
        there = id in self.pair[0].memory.workflows  # type: ignore[attr-defined]
        if there and id not in self.workflows:
            self.workflows.append(id)

    async def claim(self) -> None:
        worker = self.worker()
        inputs = self.rng.random() < 0.5
        self.asked.append(("claim", worker, inputs))
        found = [await store.claim_all(worker, inputs=inputs) for store in self.pair]
        told = [list(map(store.claimed, one)) for store, one in zip(self.pair, found, strict=True)]
        assert told[0] == told[1]
        for claimed in found[0]:
            self.runs[claimed.workflow_id] = worker, claimed.run

    async def write(self) -> None:
        held = self.holder()
        if held is not None:
            rows = {event.location: event for event in (self.event() for _ in range(self.rng.randint(0, 3)))}
            if self.rng.random() < 0.8:
                await self.both("write", *held, list(rows.values()), self.outcome(), self.run_changes())
            else:  # a row that is pending would be as old as the activity's transaction
                ended = [event for event in rows.values() if event.status != "pending"]
                await self.both("transact", *held, ended, None, self.run_changes())

    async def advance(self) -> None:
        held = self.holder()
        if held is not None:
            worker, run = held
            location, turns = self.rng.choice(("1", "1", "1,2,1", "2")), self.rng.randint(0, 4)
            values: dict[str, Any] = {"keep": self.rng.choice((0, 1, 100)), "seq": self.rng.choice((None, None, 7))}
            advances = [store.new_advance(run, location, turns, **values) for store in self.pair]
            self.asked.append(("advance", held, location, turns, values))
            told = [await store.advance(worker, each) for store, each in zip(self.pair, advances, strict=True)]
            assert told[0] == told[1] and advances[0].moved == advances[1].moved, self.asked[-1]

    async def cross(self) -> None:
        held = self.holder()
        if held is None:
            return
        rng, worker, run = self.rng, *held
        command: Sending | Dispatch = self.sending()
        if rng.random() < 0.6:
            id = self.workflow() if rng.random() < 0.2 else next(self.ids)
            command = Dispatch(
                id,
                self.pair[0].name("child"),
                "{}",
                rng.choice(TAGS),
                rng.random() < 0.5,
                None,
                rng.choice((None, 3)),
                None,
                rng.random() < 0.3,
            )
        await self.both("cross", worker, run, command)
        await self.known(command.id)

    async def send(self) -> None:
        await self.both("send", self.sending())

    async def operate(self) -> None:
        if self.workflows:
            what = self.rng.choice(("cancel", "pause", "resume", "time_out"))
            await self.both("operate", what, self.rng.choice(self.workflows))

    async def deliver(self) -> None:
        await self.both("deliver", self.worker())

    async def attend(self) -> None:
        seen = {id: self.rng.randint(0, 4) for id in self.workflows}
        pausing = [id for id in self.workflows if self.rng.random() < 0.2]
        worker = self.worker()
        self.asked.append(("attend", worker, seen, pausing))
        told = [
            sorted(map(store.arrived, await store.attend(worker, seen, pausing)), key=lambda news: news["workflow_id"])
            for store in self.pair
        ]
        assert told[0] == told[1], self.asked[-1]

    async def ask(self) -> None:
        await self.both("ask", self.worker(), [self.workflow() for _ in range(4)])

    async def free(self) -> None:
        await self.both("free", self.worker())


def comparable(answer: Any) -> Any:
    """An answer without the time or the error that came with it."""
    if isinstance(answer, tuple) and len(answer) == 2 and answer[0] in ("lost", "refused"):
        return answer[0]
    crossed = getattr(answer, "answer", None)
    if isinstance(crossed, Dispatched):  # a workflow in memory has no time before its parent's
        return answer._replace(answer=crossed._replace(older=False))
    return dict(answer) if isinstance(answer, dict) else answer


@pytest.mark.parametrize("seed", range(CONVERSATIONS))
async def test_both_answer_the_same(pair: tuple[InMemory, InPostgres], ids: Ids, seed: int) -> None:
    conversation = Conversation(pair, seed, ids)
    for _ in range(LENGTH):
        await conversation.go_on()
        await conversation.look()
