"""PostgreSQL, with the store's own parts, as a subject."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pgflow.history.events import Event
from pgflow.model.claimed import Arrived, Claimed
from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent, Standing
from pgflow.model.writes import Advance, Crossing, Inquiry, Write
from pgflow.store.database.query import Query
from pgflow.store.exchange.crossing_batch import Crossings
from pgflow.store.exchange.deliveries import DeliveryQueue
from pgflow.store.journal.forgetting import LoopAdvancer
from pgflow.store.journal.journal import Journal
from pgflow.store.journal.transactions import Transactions
from pgflow.store.leasing.claims import Claims
from pgflow.store.queries.dispatching import dispatch
from pgflow.store.queries.signalling import send
from tests.conformance.subject import Fate, News, Picture, Subject, moment, parsed
from tests.store.scene import Scene
from tests.waiting import until

T = TypeVar("T")
N = TypeVar("N", int, int | None)

EVENT = (
    "SELECT location, iteration, seq, version, kind, name, status, attempts, coalesce(completed_at, created_at), "
    "input::text, output::text, error::text, wake_at, turn_state::text, turn_now, loop_progress, loop_state::text, "
    "turn_seq, loop_seq FROM {} WHERE workflow_id = %s ORDER BY location"
)
WORKFLOW = (
    "parent_id root_id detached status output::text error::text completed_at state::text tags::text "
    "tags_given::text cancellations timeout"
).split()
RUN = (
    "priority status wake_at epoch worker_id last_worker mailbox waiting_for awaits_children cancel_requested "
    "pause_requested unique_key freed_key waiters reset fork_before deadline timed_out"
).split()
SIGNAL = "id name body::text sender_id number consumed_at location dropped_at problem".split()


class Parts:
    """What a worker has for its writes."""

    def __init__(self, scene: Scene, id: int) -> None:
        self.id = id
        self.journal = Journal(scene.database, id)
        self.loops = LoopAdvancer(scene.database, id)
        self.crossings = Crossings(scene.database, id, lambda queues: None, lambda workers: None)
        self.mailbox = DeliveryQueue(scene.database, id)
        self.transactions = Transactions(scene.database, id, ThreadPoolExecutor(1))
        self.claims = Claims(scene.database, id)
        self.claims_with_inputs = Claims(scene.database, id, inputs=True)
        self.claims_with_inputs._claims = 1_000_000  # a worker gives no number twice
        self.started = False

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        if not self.started:
            self.started = True
            for part in (self.journal, self.loops, self.crossings):
                part.start()

    async def close(self) -> None:
        """Stop, and close all connections."""
        for part in (self.journal, self.loops, self.crossings, self.mailbox, self.claims, self.claims_with_inputs):
            await part.close()
        await self.transactions.close(60.0)


class InPostgres(Subject):
    """The tables of a database.

    Args:
        scene: The database.
    """

    def __init__(self, mark: str, scene: Scene) -> None:
        super().__init__(mark)
        self.scene = scene
        self.parts: list[Parts] = []

    def worker(self) -> int:
        self.parts.append(Parts(self.scene, self.scene.worker()))
        return len(self.parts)

    def number(self, worker_id: N) -> N:
        """The number by which the tests know a worker."""
        ids = [part.id for part in self.parts]
        return ids.index(worker_id) + 1 if worker_id in ids else worker_id

    async def hand_over(self, worker: int, *what: Write | Advance | Crossing) -> list[Fate]:
        parts = self.parts[worker - 1]
        parts.start()
        for each in what:
            if isinstance(each, Write):
                parts.journal.write(each)
            elif isinstance(each, Advance):
                parts.loops.advance(each)
            else:
                parts.crossings.cross(each)
        assert not any(id(each) in self.known for each in what), "answered from within the call"
        await until(lambda: all(id(each) in self.known for each in what), "the fates of what was handed over")
        fates = [self.known[id(each)] for each in what]
        return [
            Fate("done", fate.answer._replace(worker=self.number(fate.answer.worker)))
            if isinstance(fate.answer, Sent)
            else fate
            for fate in fates
        ]

    async def commit_apart(self, worker: int, write: Write) -> datetime:
        transaction = await self.parts[worker - 1].transactions.begin(blocking=False, timeout=60.0)
        try:
            return await transaction.commit(write)
        finally:
            await transaction.close()

    async def ask(self, worker: int, ids: Sequence[UUID]) -> Mapping[UUID, Standing | None]:
        parts = self.parts[worker - 1]
        parts.start()
        answer: asyncio.Future[Mapping[UUID, Standing | None]] = asyncio.get_running_loop().create_future()
        parts.crossings.ask(Inquiry(ids, lambda inquiry, found: answer.set_result(found)))
        return await asyncio.wait_for(answer, 60)

    async def dispatch(self, request: Dispatch) -> Dispatched:
        (dispatched,) = self._read(dispatch(self.scene.database.schema, [request]))
        return dispatched

    async def send(self, sending: Sending) -> Sent:
        (sent,) = self._read(send(self.scene.database.schema, [sending]))
        return sent._replace(worker=self.number(sent.worker))

    async def operate(self, what: str, id: UUID) -> bool:
        if what == "time_out":
            self.scene.do("UPDATE runs SET deadline = now() WHERE workflow_id = %s", id)
            return bool(self.scene.one("SELECT count(*) FROM pass_deadlines() WHERE id = %s", id))
        found: bool = self.scene.one(f"SELECT {what}(%s::uuid)", id)
        return found

    async def claim(
        self, worker: int, limit: int, queues: Collection[str], names: Collection[str], *, inputs: bool = False
    ) -> list[Claimed]:
        parts = self.parts[worker - 1]
        claims = parts.claims_with_inputs if inputs else parts.claims
        await claims.claim(0, queues, names)  # learns of all priorities
        return (await claims.claim(limit, queues, names, sweep=True)).runs

    async def free(self, worker: int) -> None:
        await asyncio.sleep(0)
        text = self.scene.database.statement("leases_free")
        handed_back = {"ids": [self.parts[worker - 1].id], "gone": [None], "limit": 1000, "confirm": "1s"}
        self.scene.sql.execute(text, handed_back)

    async def deliver(self, worker: int) -> News:
        parts = self.parts[worker - 1]
        found = await parts.mailbox.deliver()
        ours = [self.arrived(news) for news in sorted(found.arrived, key=lambda news: news.workflow_id)]
        owners = {number for number, one in enumerate(self.parts, 1) if one.id in found.owners}
        return News(ours, self.queue in found.woken, owners)

    async def attend(self, worker: int, seen: Mapping[UUID, int], pausing: Collection[UUID] = ()) -> list[Arrived]:
        return await self.parts[worker - 1].mailbox.attend(seen, pausing)

    async def picture(self, id: UUID) -> Picture:
        workflow = self._row("workflows", "id", WORKFLOW, id)[0]
        workflow["tags"], workflow["tags_given"] = parsed(workflow["tags"]), parsed(workflow["tags_given"])
        workflow["completed_at"] = self.labelled(workflow["completed_at"])
        workflow["cancellations"] = list(workflow["cancellations"] or ())
        runs = self._row("runs", "workflow_id", RUN, id)
        for run in runs:
            run["worker"], run["last_worker"] = self.number(run.pop("worker_id")), self.number(run["last_worker"])
            run["wake_at"] = moment(run["wake_at"])
            run["deadline"] = run["deadline"] is not None
            run["unique_key"], run["freed_key"] = run["unique_key"] is not None, run["freed_key"] is not None
            for name in ("waiters", "waiting_for", "reset"):
                run[name] = sorted(run[name] or ())
        signals = self._row("signals", "workflow_id", SIGNAL, id, "ORDER BY arrival")
        for signal in signals:
            signal["consumed_at"] = self.labelled(signal["consumed_at"])
            signal["dropped_at"] = signal["dropped_at"] is not None
        return Picture(
            workflow,
            runs[0] if runs else None,
            [self.event(Event(*row)) for row in self.scene.all(EVENT.format("events"), id)],
            [self.event(Event(*row)) for row in self.scene.all(EVENT.format("forgotten_events"), id)],
            signals,
            self.scene.all("SELECT kind FROM requests WHERE workflow_id = %s ORDER BY id", id),
        )

    async def close(self) -> None:
        for parts in self.parts:
            await parts.close()

    def _row(self, table: str, key: str, columns: list[str], id: UUID, order: str = "") -> list[dict[str, Any]]:
        names = [column.partition("::")[0] for column in columns]
        rows = self.scene.all(f"SELECT {', '.join(columns)} FROM {table} WHERE {key} = %s {order}", id)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _read(self, query: Query[T]) -> T:
        cursor = self.scene.sql.execute(query.sql, query.params)
        return query.read(cursor.fetchall())
