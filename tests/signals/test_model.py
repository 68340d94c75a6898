"""A model of mailboxes, sleep and wake against the real database: nothing is lost, nothing comes twice, whoever
interferes.

Hypothesis chooses what happens next: signals are sent, also in transactions that stay open, two workers deliver, claim,
take, go to sleep and die, and hear of what others have delivered only when they look. PGFLOW_MODEL sets how many
schedules.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pgflow.model.claimed import Arrived, Claimed
from pgflow.model.outcomes import Suspended
from pgflow.model.rows import Signal
from pgflow.model.writes import RunChanges, Write
from pgflow.store.exchange.deliveries import DeliveryQueue
from pgflow.store.journal.journal import Journal
from pgflow.store.leasing.claims import Claims
from tests.store.scene import Scene, row

SCHEDULES = int(os.environ.get("PGFLOW_MODEL", "100"))
NAMES = ("a", "b")
WORKFLOWS = 3


@dataclass
class Held:
    """A run in a worker's memory, as `Run` keeps it."""

    id: UUID
    epoch: int
    mailbox: int
    signals: list[Signal]
    steps: int

    def receive(self, arrived: Arrived) -> bool:
        if arrived.epoch != self.epoch or arrived.after > self.mailbox:
            return False
        self.signals += [signal for signal in arrived.signals if signal.number > self.mailbox]
        self.mailbox = max(self.mailbox, arrived.mailbox)
        return True


@dataclass
class Owner:
    """One worker: its id, what it holds, and the store's side of it."""

    scene: Scene
    held: dict[UUID, Held] = field(default_factory=dict)
    missed: bool = False

    def open(self) -> None:
        self.id = self.scene.worker()
        self.mailbox = DeliveryQueue(self.scene.database, self.id)
        self.claims = Claims(self.scene.database, self.id)
        self.journal = Journal(self.scene.database, self.id)
        self.journal.start()

    async def close(self) -> None:
        await self.journal.close()
        await self.claims.close()
        await self.mailbox.close()

    async def deliver(self) -> None:
        for arrived in (await self.mailbox.deliver()).arrived:
            self.hear(arrived)

    def hear(self, arrived: Arrived) -> None:
        held = self.held.get(arrived.workflow_id)
        if held is None or not held.receive(arrived):
            self.missed = True

    async def attend(self) -> None:
        self.missed = False
        for arrived in await self.mailbox.attend({held.id: held.mailbox for held in self.held.values()}):
            self.hear(arrived)

    async def claim(self) -> None:
        for claimed in (await self.claims.claim(10, ["default"], ["flow"])).runs:
            self.held[claimed.workflow_id] = self._taken_up(claimed)

    def _taken_up(self, claimed: Claimed) -> Held:
        steps = self.scene.one("SELECT count(*) FROM events WHERE workflow_id = %s", claimed.workflow_id)
        return Held(claimed.workflow_id, claimed.epoch, claimed.mailbox, list(claimed.signals), steps)

    async def write(self, held: Held, **what: Any) -> None:
        write = self.scene.write(held.id, what.pop("rows", ()), what.pop("outcome", None), held.epoch)
        write.run_changes = RunChanges(**what)
        self.journal.write(write)
        (fate,) = await self.scene.fates(write)
        if fate != "committed":
            self.held.pop(held.id, None)
        self._forget(write)

    def _forget(self, write: Write) -> None:
        del self.scene.log[id(write)]


class World:
    """What the schedules share: a database, a loop, two workers."""

    def __init__(self, dsn: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.scene = Scene(dsn)
        self.owners = [Owner(self.scene), Owner(self.scene)]
        for owner in self.owners:
            self.do(self._open(owner))

    async def _open(self, owner: Owner) -> None:
        owner.open()

    def do(self, what: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(what)

    def replace(self, owner: int) -> None:
        """A worker dies: all in its memory is gone, recovery gives what it held to the living, another comes."""
        dead = self.owners[owner]
        self.do(dead.close())
        self.scene.do(
            "UPDATE runs SET status = 'pending', wake_at = now(), worker_id = NULL, claim = NULL "
            "WHERE worker_id = %s AND status = 'running'",
            dead.id,
        )
        self.scene.do("DELETE FROM workers WHERE id = %s", dead.id)
        self.owners[owner] = Owner(self.scene)
        self.do(self._open(self.owners[owner]))

    def close(self) -> None:
        for owner in self.owners:
            self.do(owner.close())
        self.scene.close()
        self.loop.close()


LEFT = "SELECT count(*) FROM signals AS s WHERE s.workflow_id = ANY (%s) AND s.consumed_at IS NULL"
OVERLOOKED = f"""
{LEFT} AND NOT (s.number IS NOT NULL AND EXISTS (
    SELECT FROM runs AS r WHERE r.workflow_id = s.workflow_id AND r.status = 'sleeping'
        AND NOT s.name = ANY (r.waiting_for)))
"""


class Mail(RuleBasedStateMachine):
    """The rules: what may happen next."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.scene, self.owners, self.do = self.world.scene, self.world.owners, self.world.do
        self.workflows = [self.scene.run() for _ in range(WORKFLOWS)]
        self.open: list[psycopg.Connection[Any]] = []

    def _send(self, on: psycopg.Connection[Any], workflow: int, name: str) -> None:
        on.execute("SELECT signal(%s, %s, '{}')", [self.workflows[workflow], name])

    @rule(workflow=st.integers(0, WORKFLOWS - 1), name=st.sampled_from(NAMES))
    def send(self, workflow: int, name: str) -> None:
        self._send(self.scene.sql, workflow, name)

    @precondition(lambda self: len(self.open) < 2)
    @rule(workflow=st.integers(0, WORKFLOWS - 1), name=st.sampled_from(NAMES))
    def send_and_leave_open(self, workflow: int, name: str) -> None:
        connection = self.scene.other()
        self._send(connection, workflow, name)
        self.open.append(connection)

    @precondition(lambda self: self.open)
    @rule(commit=st.booleans())
    def end_the_open_one(self, commit: bool) -> None:
        connection = self.open.pop(0)
        connection.commit() if commit else connection.rollback()
        connection.close()

    @rule(owner=st.integers(0, 1))
    def deliver(self, owner: int) -> None:
        self.do(self.owners[owner].deliver())

    @rule(owner=st.integers(0, 1))
    def attend(self, owner: int) -> None:
        self.do(self.owners[owner].attend())

    @rule(owner=st.integers(0, 1))
    def claim(self, owner: int) -> None:
        self.do(self.owners[owner].claim())

    @rule(owner=st.integers(0, 1), name=st.sampled_from(NAMES), pick=st.integers(0, 9))
    def take(self, owner: int, name: str, pick: int) -> None:
        held = self._pick(owner, pick)
        if held is not None:
            self.do(self._take(self.owners[owner], held, name))

    @rule(owner=st.integers(0, 1), names=st.sampled_from([("a",), ("b",), ("a", "b")]), pick=st.integers(0, 9))
    def sleep(self, owner: int, names: tuple[str, ...], pick: int) -> None:
        held = self._pick(owner, pick)
        if held is not None and not any(signal.name in names for signal in held.signals):
            self.do(self._sleep(self.owners[owner], held, names))

    @rule(owner=st.integers(0, 1))
    def die(self, owner: int) -> None:
        self.world.replace(owner)

    def _pick(self, owner: int, pick: int) -> Held | None:
        held = list(self.owners[owner].held.values())
        return held[pick % len(held)] if held else None

    async def _take(self, owner: Owner, held: Held, name: str) -> None:
        for signal in held.signals:
            if signal.name == name:
                held.signals.remove(signal)
                held.steps += 1
                location = "abc"[len(str(held.steps)) - 2] + str(held.steps) if held.steps > 9 else str(held.steps)
                output = json.dumps({"id": str(signal.id), "name": name, "number": signal.number})
                rows = [row(location, output, kind="listen", name=name, seq=held.steps)]
                await owner.write(held, rows=rows, consumed=[(signal.id, location)])
                return

    async def _sleep(self, owner: Owner, held: Held, names: tuple[str, ...]) -> None:
        await owner.write(held, outcome=Suspended(None, names, held.mailbox))
        owner.held.pop(held.id, None)

    @invariant()
    def nothing_comes_twice_or_out_of_order(self) -> None:
        taken: dict[tuple[UUID, str], list[int]] = {}
        seen: set[str] = set()
        for id, name, output in self.scene.all(
            "SELECT workflow_id, name, output FROM events WHERE workflow_id = ANY (%s) AND kind = 'listen' ORDER BY "
            "workflow_id, seq",
            self.workflows,
        ):
            assert output["id"] not in seen, "a signal was taken twice"
            seen.add(output["id"])
            taken.setdefault((id, name), []).append(output["number"])
        assert all(numbers == sorted(numbers) for numbers in taken.values()), taken
        signals = self.scene.all(
            "SELECT id::text, workflow_id, number, consumed_at IS NOT NULL FROM signals WHERE workflow_id = ANY (%s)",
            self.workflows,
        )
        assert {id for id, _, _, consumed in signals if consumed} == seen
        numbers = [(workflow, number) for _, workflow, number, _ in signals if number is not None]
        assert len(numbers) == len(set(numbers))

    @invariant()
    def nobody_sleeps_on_what_has_been_delivered(self) -> None:
        lost = self.scene.all(
            "SELECT s.id FROM runs AS r JOIN signals AS s ON s.workflow_id = r.workflow_id AND s.name = ANY "
            "(r.waiting_for) WHERE r.workflow_id = ANY (%s) AND r.status = 'sleeping' AND s.number IS NOT NULL AND "
            "s.consumed_at IS NULL",
            self.workflows,
        )
        assert lost == [], "a wake-up was lost"

    def teardown(self) -> None:
        """Whatever happened, all that was sent and committed can be taken in the end."""
        for connection in self.open:
            connection.commit()
            connection.close()
        self.do(self._drain(OVERLOOKED))
        self.nobody_sleeps_on_what_has_been_delivered()
        # What is left was sent to somebody who sleeps on another name: it is there when a timeout wakes them.
        self.scene.do(
            "UPDATE runs SET status = 'pending', wake_at = now() WHERE workflow_id = ANY (%s) AND status = 'sleeping'",
            self.workflows,
        )
        self.do(self._drain(LEFT))
        self.nothing_comes_twice_or_out_of_order()
        self.scene.do("DELETE FROM runs WHERE workflow_id = ANY (%s)", self.workflows)
        for owner in self.owners:
            owner.held.clear()

    async def _drain(self, left: str) -> None:
        async with asyncio.timeout(60):
            while self.scene.one(left, self.workflows):
                for owner in self.owners:
                    await owner.deliver()
                    await owner.claim()
                    await owner.attend()
                    for held in list(owner.held.values()):
                        while held.signals and held.id in owner.held:
                            await self._take(owner, held, held.signals[0].name)
                        if held.id in owner.held:
                            await self._sleep(owner, held, NAMES)


def schedules(machine: type[Mail], dsn: str, count: int, *phases: Phase) -> None:
    world = World(dsn)
    try:
        run_state_machine_as_test(
            type("MailOf", (machine,), {"world": world}),
            settings=settings(
                max_examples=count,
                stateful_step_count=25,
                deadline=None,
                database=None,
                phases=phases,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        world.close()


@pytest.mark.timeout(240 + SCHEDULES)
def test_the_model(dsn: str) -> None:
    schedules(Mail, dsn, SCHEDULES, Phase.generate, Phase.shrink)


class Forgetful(Mail):
    """A worker that does not compare what it has seen when it goes to sleep."""

    async def _sleep(self, owner: Owner, held: Held, names: tuple[str, ...]) -> None:
        await owner.write(held, outcome=Suspended(None, names, held.mailbox + 1000))
        owner.held.pop(held.id, None)


@pytest.mark.parametrize("machine", [Mail, Forgetful])
def test_the_model_notices_a_lost_wake_up(dsn: str, machine: type[Mail]) -> None:
    """A signal that is delivered by another worker while a run goes to sleep: only the comparison saves it."""
    world = World(dsn)
    try:
        state = type("MailOf", (machine,), {"world": world})()
        state.begin()
        state.claim(0)
        state.send(0, "a")
        state.deliver(1)
        for _ in range(WORKFLOWS):
            state.sleep(0, ("a",), 0)
        if machine is Mail:
            state.nobody_sleeps_on_what_has_been_delivered()
        else:
            with pytest.raises(AssertionError, match="a wake-up was lost"):
                state.nobody_sleeps_on_what_has_been_delivered()
    finally:
        world.close()
