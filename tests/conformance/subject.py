"""A store under test: what clients and workers ask of it, and a picture of all that can be seen in it.

Times are not comparable from store to store. In a picture a moment is shown as the test's transaction whose time it is
("#3": the fourth that was committed), as "due" if it has come, or as itself if the test has given it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pgflow.errors import LeaseLost
from pgflow.history.events import Event
from pgflow.model.claimed import Arrived, Claimed
from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent, Standing
from pgflow.model.outcomes import Outcome
from pgflow.model.rows import EventRow, RunKey
from pgflow.model.writes import Advance, Crossing, RunChanges, Write

LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""A moment that does not come during a test."""


class Fate(NamedTuple):
    """What became of something that was asked for: "done", "lost" (the lease), or "refused"; and what came with it."""

    what: str
    answer: Any = None


@dataclass
class Picture:
    """One workflow as it can be seen in a store."""

    workflow: dict[str, Any]
    run: dict[str, Any] | None
    events: list[tuple[Any, ...]]
    forgotten: list[tuple[Any, ...]]
    signals: list[dict[str, Any]]
    requests: list[str]


@dataclass
class News:
    """What a round of deliveries brought the worker that made it, in the order of workflows."""

    arrived: list[dict[str, Any]] = field(default_factory=list)
    woken: bool = False
    owners: set[int] = field(default_factory=set)


class Subject(ABC):
    """A store, with workers that are known by their numbers from 1 on, and workflows of one test.

    Args:
        mark: Makes names and queues of this test its own.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.queue = f"queue {mark}"
        self.told: list[datetime] = []
        """The times of the transactions that were committed, as far as the store tells."""
        self.order: list[object] = []
        """Writes, advancements and crossings in the order in which their fates were told."""
        self.known: dict[int, Fate] = {}
        """What became of these, by their identities."""

    def name(self, name: str = "flow") -> str:
        """A workflow's name that only this test uses."""
        return f"{name} {self.mark}"

    async def start(self, id: UUID, name: str = "flow", **options: Any) -> Dispatched:
        """Start a workflow."""
        options = {"queue": self.queue, **options}
        return await self.dispatch(Dispatch(id, self.name(name), **options))

    async def claim_all(self, worker: int, limit: int = 100, **options: Any) -> list[Claimed]:
        """Take what is due of this test, whatever its name, in the order of ids."""
        names = options.pop("names", ("flow", "other", "child"))
        queue = options.pop("queue", self.queue)
        found = await self.claim(worker, limit, [queue], [self.name(name) for name in names], **options)
        return sorted(found, key=lambda claimed: claimed.workflow_id)

    async def running(self, worker: int, id: UUID, **options: Any) -> RunKey:
        """A workflow that a worker has just taken."""
        await self.start(id, **options)
        (claimed,) = await self.claim_all(worker, queue=options.get("queue", self.queue))
        assert claimed.workflow_id == id
        return claimed.run

    def labelled(self, at: datetime | None) -> str | None:
        """What is said of the time of a transaction, in a picture."""
        return f"#{self.told.index(at)}" if at in self.told else moment(at)

    def event(self, event: Event) -> tuple[Any, ...]:
        """A row of history in a picture."""
        values = event._asdict() | {"at": self.labelled(event.at)}
        return tuple((values | {name: moment(values[name]) for name in ("wake_at", "turn_now")}).values())

    # Made by the tests, told here.

    def new_write(
        self,
        run: RunKey,
        rows: Sequence[EventRow] = (),
        outcome: Outcome | None = None,
        run_changes: RunChanges | None = None,
    ) -> Write:
        """A write whose fate is noted."""
        return Write(run, list(rows), outcome, self.committed, self.refused, run_changes)

    def new_advance(
        self, run: RunKey, location: str, turns: int, *, keep: int = 100, seq: int | None = None, **values: Any
    ) -> Advance:
        """An advancement whose fate is noted."""
        values = {"state": f'"after {turns}"', "started": 10 * turns, **values}
        output = None if seq is None else f'"broke at {turns}"'
        return Advance(
            workflow_id=run.workflow_id,
            epoch=run.epoch,
            location=location,
            turns=turns,
            keep=keep,
            output=output,
            seq=seq,
            on_commit=self.committed,
            on_refused=self.refused,
            **values,
        )

    def new_crossing(self, run: RunKey, command: Sending | Dispatch) -> Crossing:
        """A crossing whose fate is noted."""
        return Crossing(run.workflow_id, run.epoch, command, self.done, self.refused)

    def committed(self, what: Any, at: datetime) -> None:
        """Told by the store: it is durable."""
        assert isinstance(at, datetime)
        if at not in self.told:
            self.told.append(at)
        self._note(what, Fate("done", at))

    def done(self, what: Any, answer: Any) -> None:
        """Told by the store: it is done."""
        self._note(what, Fate("done", answer))

    def refused(self, what: Any, error: BaseException) -> None:
        """Told by the store: it is not done."""
        self._note(what, Fate("lost" if isinstance(error, LeaseLost) else "refused", error))

    def _note(self, what: Any, fate: Fate) -> None:
        assert id(what) not in self.known, f"told twice: {self.known[id(what)]}, {fate}"
        self.known[id(what)] = fate
        self.order.append(what)

    async def write(
        self,
        worker: int,
        run: RunKey,
        rows: Sequence[EventRow] = (),
        outcome: Outcome | None = None,
        run_changes: RunChanges | None = None,
    ) -> str:
        """Hand one write over and wait for its fate."""
        return (await self.hand_over(worker, self.new_write(run, rows, outcome, run_changes)))[0].what

    async def transact(
        self,
        worker: int,
        run: RunKey,
        rows: Sequence[EventRow] = (),
        outcome: Outcome | None = None,
        run_changes: RunChanges | None = None,
    ) -> str:
        """Make one write durable by a transaction of its own, as a transactional activity does."""
        write = self.new_write(run, rows, outcome, run_changes)
        try:
            at = await self.commit_apart(worker, write)
        except Exception as error:
            write.on_refused(write, error)
        else:
            write.on_commit(write, at)
        return self.known[id(write)].what

    async def advance(self, worker: int, advance: Advance) -> str:
        """Hand one advancement over and wait for its fate."""
        return (await self.hand_over(worker, advance))[0].what

    async def cross(self, worker: int, run: RunKey, command: Sending | Dispatch) -> Fate:
        """Hand one crossing over and wait for its fate."""
        return (await self.hand_over(worker, self.new_crossing(run, command)))[0]

    # What each store does in its own way.

    @abstractmethod
    def worker(self) -> int:
        """Register a worker."""

    @abstractmethod
    async def hand_over(self, worker: int, *what: Write | Advance | Crossing) -> list[Fate]:
        """Hand all of these to a worker's ports at once, and wait for what becomes of them."""

    @abstractmethod
    async def commit_apart(self, worker: int, write: Write) -> datetime:
        """Begin a transaction as for an activity, and commit a write with it: the time of that."""

    @abstractmethod
    async def ask(self, worker: int, ids: Sequence[UUID]) -> Mapping[UUID, Standing | None]:
        """Ask how workflows have ended."""

    @abstractmethod
    async def dispatch(self, request: Dispatch) -> Dispatched:
        """Start a workflow, as a client does."""

    @abstractmethod
    async def send(self, sending: Sending) -> Sent:
        """Send a signal, as a client does."""

    @abstractmethod
    async def operate(self, what: str, id: UUID) -> bool:
        """Cancel, pause or resume a workflow, or let its deadline pass (`time_out`)."""

    @abstractmethod
    async def claim(
        self, worker: int, limit: int, queues: Collection[str], names: Collection[str], *, inputs: bool = False
    ) -> list[Claimed]:
        """Take due runs."""

    @abstractmethod
    async def free(self, worker: int) -> None:
        """A worker hands back what it holds."""

    @abstractmethod
    async def deliver(self, worker: int) -> News:
        """Deliver all that waits."""

    @abstractmethod
    async def attend(self, worker: int, seen: Mapping[UUID, int], pausing: Collection[UUID] = ()) -> list[Arrived]:
        """News of what a worker holds."""

    @abstractmethod
    async def picture(self, id: UUID) -> Picture:
        """All that can be seen of one workflow."""

    @abstractmethod
    async def close(self) -> None:
        """End what is under way."""

    def claimed(self, claimed: Claimed) -> dict[str, Any]:
        """What a claim brings, to compare."""
        names = "workflow_id name queue epoch input tags parent_id seed mailbox cancel_requested signals state"
        names += " tags_now warm"
        found = {name: getattr(claimed, name) for name in names.split()}
        found["events"] = [self.event(event) for event in claimed.events]
        found["cancellations"] = list(claimed.cancellations)
        return found

    def arrived(self, news: Arrived) -> dict[str, Any]:
        """News of a run, to compare."""
        names = "workflow_id epoch after mailbox cancel pause signals"
        return {name: getattr(news, name) for name in names.split()}


def moment(at: datetime | None) -> str | None:
    """What is said of a moment in a picture: whether it has come, or which one it is."""
    if at is None:
        return None
    return at.isoformat() if at >= LATER else "due"


def parsed(text: str | None) -> Any:
    """A text of JSON that may be written in several ways."""
    return None if text is None else json.loads(text)


def hours(count: float) -> datetime:
    """A moment that does not come, told from others of its kind."""
    return LATER + timedelta(hours=count)
