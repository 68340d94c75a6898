"""The store in memory, as a subject."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from pgflow.model.claimed import Arrived, Claimed
from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent, Standing
from pgflow.model.writes import Advance, Crossing, Inquiry, Write
from pgflow.testing.memory import Memory
from pgflow.testing.memory_ports import MemoryPorts
from tests.conformance.subject import Fate, News, Picture, Subject, moment, parsed


class InMemory(Subject):
    """`pgflow.testing.memory`."""

    def __init__(self, mark: str) -> None:
        super().__init__(mark)
        self.memory = Memory(datetime.now(UTC))
        self.workers = 0

    def worker(self) -> int:
        self.workers += 1
        return self.workers

    async def hand_over(self, worker: int, *what: Write | Advance | Crossing) -> list[Fate]:
        ports = MemoryPorts(self.memory, worker)
        for each in what:
            if isinstance(each, Write):
                ports.write(each)
            elif isinstance(each, Advance):
                ports.advance(each)
            else:
                ports.cross(each)
        assert not any(id(each) in self.known for each in what), "answered from within the call"
        while ports.writes:
            ports.commit()
        while ports.advances:
            ports.forget()
        while ports.crossings:
            ports.do()
        return [self.known[id(each)] for each in what]

    async def commit_apart(self, worker: int, write: Write) -> datetime:
        return self.memory.commit(worker, write)

    async def ask(self, worker: int, ids: Sequence[UUID]) -> Mapping[UUID, Standing | None]:
        ports = MemoryPorts(self.memory, worker)
        answers: list[Mapping[UUID, Standing | None]] = []
        ports.ask(Inquiry(ids, lambda inquiry, answer: answers.append(answer)))
        ports.answer()
        return answers[0]

    async def dispatch(self, request: Dispatch) -> Dispatched:
        return self.memory.dispatch(request)

    async def send(self, sending: Sending) -> Sent:
        return self.memory.send(sending)

    async def operate(self, what: str, id: UUID) -> bool:
        if what == "time_out":
            if (run := self.memory.runs.get(id)) is not None:
                self.memory.runs[id] = run._replace(deadline=self.memory.now)
            return id in self.memory.pass_deadlines()
        found: bool = getattr(self.memory, what)(id)
        return found

    async def claim(
        self, worker: int, limit: int, queues: Collection[str], names: Collection[str], *, inputs: bool = False
    ) -> list[Claimed]:
        return self.memory.claim(worker, limit, queues, names, inputs=inputs)

    async def free(self, worker: int) -> None:
        self.memory.free(worker)

    async def deliver(self, worker: int) -> News:
        found = self.memory.deliver(worker)
        return News([self.arrived(news) for news in found.arrived], self.queue in found.woken, found.owners)

    async def attend(self, worker: int, seen: Mapping[UUID, int], pausing: Collection[UUID] = ()) -> list[Arrived]:
        return self.memory.attend(worker, seen, pausing)

    async def picture(self, id: UUID) -> Picture:
        memory = self.memory
        workflow = memory.workflows[id]._asdict() | {"detached": memory.workflows[id].detached}
        for name in ("id", "created_at", "name", "input", "seed"):
            del workflow[name]
        workflow["tags"], workflow["tags_given"] = parsed(workflow["tags"]), parsed(workflow["tags_given"])
        workflow["completed_at"] = self.labelled(workflow["completed_at"])
        workflow["cancellations"] = list(workflow["cancellations"])
        run = memory.runs[id]._asdict() if id in memory.runs else None
        if run is not None:
            for name in ("workflow_id", "name", "queue"):
                del run[name]
            run["wake_at"] = moment(run["wake_at"])
            run["deadline"] = run["deadline"] is not None
            run["unique_key"], run["freed_key"] = run["unique_key"] is not None, run["freed_key"] is not None
            run["waiters"] = sorted(run["waiters"])
            run["waiting_for"], run["reset"] = sorted(run["waiting_for"]), sorted(run["reset"])
        signals = [signal._asdict() for signal in memory.signals.values() if signal.workflow_id == id]
        for signal in signals:
            signal["consumed_at"] = self.labelled(signal["consumed_at"])
            signal["dropped_at"] = signal["dropped_at"] is not None
            del signal["workflow_id"]
        forgotten = memory.forgotten.get(id, {})
        return Picture(
            workflow,
            run,
            [self.event(event) for event in memory.history(id)],
            [self.event(forgotten[location]) for location in sorted(forgotten)],
            signals,
            [request.kind for request in memory.requests if request.workflow_id == id],
        )

    async def close(self) -> None:
        pass
