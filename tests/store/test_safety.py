"""Rules of docs/safety.md that no other test covers: fencing, fresh history, locks, timeouts, one flush, unknown
commits.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest
import pytest_asyncio

from pgflow import faults
from pgflow.errors import LeaseLost
from pgflow.model.outcomes import Completed, Failed, Outcome, Suspended
from pgflow.store.database.connections import Database, Line
from pgflow.store.exchange.deliveries import DeliveryQueue
from pgflow.store.journal.journal import Journal
from pgflow.store.journal.transactions import Transactions
from pgflow.store.leasing.claims import Claims
from pgflow.store.leasing.leases import recover
from tests.client.fake import proxy
from tests.store.scene import Scene, row


@pytest_asyncio.fixture
async def claims(scene: Scene, worker: int) -> AsyncIterator[Claims]:
    claims = Claims(scene.database, worker)
    yield claims
    await claims.close()


# 1. Fencing


@pytest.mark.parametrize("outcome", [None, Suspended(None), Completed('"over"'), Failed("{}")])
@pytest.mark.parametrize("how", ["another worker", "another epoch", "handed back"])
async def test_whoever_lost_the_lease_writes_nothing(
    scene: Scene, worker: int, journal: Journal, how: str, outcome: Outcome | None
) -> None:
    """Neither rows nor outcomes; and what others have in the same batch is written."""
    lost, kept = scene.run(worker), scene.run(worker)
    if how == "another worker":
        scene.do("UPDATE runs SET worker_id = %s WHERE workflow_id = %s", scene.worker(), lost)
    elif how == "another epoch":
        scene.do("UPDATE runs SET epoch = 2 WHERE workflow_id = %s", lost)
    else:
        scene.do("UPDATE runs SET worker_id = NULL, status = 'pending', wake_at = now() WHERE workflow_id = %s", lost)
    seen = "SELECT (SELECT r::text FROM runs AS r WHERE workflow_id = w.id), w::text FROM workflows AS w WHERE id = %s"
    before = scene.one(seen, lost)
    held = asyncio.Event()
    with faults.install({"journal.before": held.wait}):
        first = scene.write(kept, [row("1")])
        journal.write(first)
        await asyncio.sleep(0)
        writes = [scene.write(lost, [row("1")], outcome), scene.write(kept, [row("2")])]
        for write in writes:
            journal.write(write)
        held.set()
        assert await scene.fates(first, *writes) == ["committed", "refused", "committed"]
    assert isinstance(scene.told(writes[0]), LeaseLost)
    assert scene.one(seen, lost) == before
    assert scene.locations(lost) == []
    assert scene.locations(kept) == ["1", "2"]


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("how", ["another worker", "another epoch", "nobody"])
async def test_a_transaction_without_the_lease_commits_nothing(
    scene: Scene, worker: int, how: str, thread: bool
) -> None:
    """Neither the result nor what the activity itself has written; and it gets no further than to the fence."""
    scene.do("CREATE TABLE public.effects (what text)")
    workflow = scene.run(worker)
    change = {
        "another worker": "UPDATE runs SET worker_id = 1 + worker_id",
        "another epoch": "UPDATE runs SET epoch = 2",
        "nobody": "UPDATE runs SET worker_id = NULL, status = 'pending', wake_at = now()",
    }[how]
    passed: list[str] = []
    with ThreadPoolExecutor(2) as threads, faults.install({"transactions.fenced": lambda: passed.append("the fence")}):
        transactions = Transactions(scene.database, worker, threads)
        for lost in (False, True):
            transaction = await transactions.begin(blocking=thread, timeout=None)
            inserted = transaction.connection.execute("INSERT INTO public.effects VALUES (%s)", [str(lost)])
            if not thread:
                await inserted
            if lost:
                scene.do(change)
                with pytest.raises(LeaseLost):
                    await transaction.commit(scene.write(workflow, [row("2")]))
            else:
                await transaction.commit(scene.write(workflow, [row("1")]))
            await transaction.close()
        await transactions.close(5.0)
    assert passed == ["the fence"]
    assert scene.all("SELECT what FROM public.effects") == ["False"]
    assert scene.locations(workflow) == ["1"]


# 2. Lock order


ALEMBIC = Path(__file__).parents[2] / "alembic"

ALONE = {
    "transaction_fence.sql": "a transactional activity's own, last",
    "fork": "the workflow that is copied",
    "rewind": "the workflow that is rewound",
    "terminate": "the workflow that is ended",
    "update_workflow": "the workflow that is changed",
    "wake": "the workflow that is woken",
}
"""What locks one row, by its id, and no other: there is no order to keep."""

UNLOCKED = {
    "pause": "UPDATE {schema}.runs AS r SET",
    "resume": "UPDATE {schema}.runs AS r SET",
    "dispatch": "DELETE FROM {schema}.runs AS r WHERE key IS NOT NULL AND r.workflow_id = given_id",
    "end_cancelled": "DELETE FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id",
    "record_failure": "UPDATE {schema}.runs AS r SET error_type",
    "end_timed_out": "UPDATE {schema}.runs AS r SET",
}
"""What changes one row, by its id, and no other: it locks it by that (`dispatch` removes what it has just inserted; who
calls `end_cancelled` or `end_timed_out` has locked the row; `record_failure` is the trigger of that row's own change).
"""


REMOVES = {"remove_workflows": "UPDATE"}
"""What locks rows to remove them, failed ones, which no writer holds: by the mode that it does so with."""

BEHIND = {"fence_move.sql": "fence_runs.sql"}
"""What is sent behind another statement, in its transaction."""


def _uncommented(text: str) -> str:
    return re.sub(r"--[^\n]*", "", text)


def _texts() -> dict[str, str]:
    """The statements, with the head that they are sent with, or behind in one transaction, and the functions of the
    schema, all without their comments.
    """
    folder = resources.files("pgflow.store") / "sql"
    found = {}
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            head = "journal_fence.sql" if file.name.startswith("journal_") else BEHIND.get(file.name, file.name)
            parts = dict.fromkeys((head, file.name))
            found[file.name] = _uncommented("".join((folder / part).read_text(encoding="utf-8") for part in parts))
    for objects in sorted(ALEMBIC.glob("objects_*")):
        functions: dict[str, str] = {}
        for path in objects.glob("*.sql"):
            for part in path.read_text(encoding="utf-8").split("--;"):
                if function := re.match(r"\s*CREATE (?:OR REPLACE )?FUNCTION \{schema\}\.(\w+)", part):
                    functions[function[1]] = functions.get(function[1], "") + _uncommented(part)
        found |= functions  # a later migration's take the place of an earlier one's
    return found


TEXTS = _texts()
CHANGES = re.compile(r"(UPDATE|DELETE FROM) \{schema\}\.runs\b")


def locks(name: str) -> list[tuple[int, str, str]]:
    """Where a statement locks runs: the place, the mode, and the part of the statement that does."""
    text = TEXTS[name]
    found = []
    for lock in re.finditer(r"\bFOR (NO KEY UPDATE|KEY SHARE|UPDATE|SHARE)\b( OF \w+)?( SKIP LOCKED)?", text):
        begin = max(text.rfind(start, 0, lock.start()) for start in (" AS MATERIALIZED (", " AS (", ";"))
        part = text[max(begin, 0) : lock.end()]
        if "{schema}.runs AS r" in part and lock[2] in (None, " OF r"):
            found.append((lock.start(), lock[1], part))
    return found


def touching() -> list[str]:
    """All that lock or change rows of `runs`."""
    return sorted(name for name, text in TEXTS.items() if CHANGES.search(text) or locks(name))


def test_what_locks_runs_is_found() -> None:
    found = {name for name in touching() if locks(name)}
    assert {
        "claim.sql",
        "crossing_fence.sql",
        "journal_fence.sql",
        "leases_free.sql",
        "loops_fence.sql",
        "mail_deliver.sql",
    } <= found
    assert {"retry", "fork"} <= found
    assert set(ALONE) | set(UNLOCKED) <= set(touching())


@pytest.mark.parametrize("name", touching())
def test_runs_are_locked_first_in_order_and_in_one_mode(name: str) -> None:
    """Whoever changes rows of `runs` has locked them before, in the same statement or function; in one mode, and either
    by id, or without waiting for anybody."""
    for _, mode, part in locks(name):
        assert mode == REMOVES.get(name, "NO KEY UPDATE")
        if name in ALONE:
            assert re.search(r"WHERE r\.workflow_id = (%\(workflow_id\)s::uuid|workflow_id)\b", part)
        else:
            assert "SKIP LOCKED" in part or "ORDER BY r.workflow_id" in part
    if name in ALONE:
        assert len(locks(name)) == 1
    changes = list(CHANGES.finditer(TEXTS[name]))
    if name in UNLOCKED:
        assert len(changes) == 1 and not locks(name)
        assert UNLOCKED[name] in TEXTS[name]
        assert re.search(r"WHERE [^;]*\br\.workflow_id = (workflow_id|given_id)\b", TEXTS[name][changes[0].start() :])
    elif changes:
        assert [place for place, _, _ in locks(name) if place < changes[0].start()]


# 4. Fresh history


async def test_the_old_owners_last_commit_is_seen(scene: Scene, claims: Claims) -> None:
    """It is committed when the claim has been executed already, and before history is read."""
    workflow = scene.run(epoch=1)

    def commit_late() -> None:
        locked = "SELECT FROM runs WHERE workflow_id = %s FOR NO KEY UPDATE SKIP LOCKED"
        assert scene.all(locked, workflow) == [], "the server has executed the claim"
        scene.do(
            "INSERT INTO events (workflow_id, location, kind, name, status) VALUES (%s, '1', 'activity', 'x', "
            "'completed')",
            workflow,
        )

    with faults.install({"claims.before_read": commit_late}):
        (claimed,) = (await claims.claim(10, ["default"], ["flow"])).runs
    assert [event.location for event in claimed.events] == ["1"]


# 5. Nobody waits for a stranger


async def test_claims_and_recovery_pass_over_what_strangers_hold(scene: Scene, worker: int, claims: Claims) -> None:
    """A stranger's open transaction holds up neither; what it held is found when it ends."""
    due, free = scene.run(), scene.run()
    dead = scene.worker(lease=-1.0)
    orphan, other = scene.run(dead), scene.run(dead)
    stranger = scene.other()
    stranger.execute("SELECT FROM runs WHERE workflow_id = ANY(%s) FOR UPDATE", [[due, orphan]])
    scene.do("SET statement_timeout = '10s'")
    async with asyncio.timeout(10):
        claimed = {run.workflow_id for run in (await claims.claim(10, ["default"], ["flow"])).runs}
        assert claimed == {free}
        assert await recover(scene.database, worker) == 1
        claimed = {run.workflow_id for run in (await claims.claim_suspected((10, 10, 10), ["default"], ["flow"])).runs}
        assert claimed == {other}
        stranger.rollback()
        assert await recover(scene.database, worker) == 1
        claims._next_sweep = 0.0
        claimed = {run.workflow_id for run in (await claims.claim(10, ["default"], ["flow"])).runs}
        assert claimed == {due}
        claimed = {run.workflow_id for run in (await claims.claim_suspected((10, 10, 10), ["default"], ["flow"])).runs}
        assert claimed == {orphan}
    stranger.close()
    assert scene.all("SELECT id FROM workers WHERE id = %s", dead) == []


async def test_deliveries_pass_over_receivers_that_strangers_hold(scene: Scene, worker: int) -> None:
    held, free = (scene.run(status="sleeping", wake_in=3600.0, waiting_for=["news"]) for _ in range(2))
    for receiver in (held, free):
        scene.all("SELECT signal(%s::uuid, 'news')", receiver)
    stranger = scene.other()
    stranger.execute("SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", [held])
    mailbox = DeliveryQueue(scene.database, worker)
    woken = "SELECT workflow_id FROM runs WHERE status = 'pending'"
    async with asyncio.timeout(5):  # half of what the engine's statements may take
        await mailbox.deliver()
        assert scene.all(woken) == [free]
        stranger.rollback()
        await mailbox.deliver()
    assert set(scene.all(woken)) == {free, held}
    stranger.close()
    await mailbox.close()


# 6. Short transactions


async def test_timeouts_hold_within_transactions_whatever_the_session_says(scene: Scene) -> None:
    """Behind a pooler, the session that a transaction gets is not the one whose settings were made."""
    line = Line(Database(scene.database.dsn, lease=9.0), "test")
    connection = await line.get()
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        cursor = await connection.execute(f"SHOW {setting}".encode())
        assert await cursor.fetchone() == ("6s",)
        await connection.execute(f"SET {setting} = 0".encode())
        async with line.transaction() as transaction:
            cursor = await transaction.execute(f"SHOW {setting}".encode())
        assert await cursor.fetchone() == ("6s",)
    await line.drop()


def test_dead_peers_are_noticed(scene: Scene) -> None:
    with scene.database.connect_blocking("test") as connection:
        told = connection.info.get_parameters()
    assert told["keepalives"] == "1" and told["keepalives_idle"] == "5"
    assert int(told["tcp_user_timeout"]) <= scene.database.lease * 1000


async def test_transactions_leave_without_waiting_for_an_answer(scene: Scene, worker: int) -> None:
    """No answer comes through between a transaction's begin and its end: whoever waited for one would wait for ever."""
    async with proxy(scene.database.dsn) as between:
        between.withholds = True
        database = Database(between.dsn)
        claims = Claims(database, worker)
        scene.run()
        async with asyncio.timeout(20):
            assert len((await claims.claim(10, ["default"], ["flow"])).runs) == 1
        await claims.close()
        line = Line(database, "test")
        async with asyncio.timeout(20), line.transaction(serializable=True) as transaction:
            for _ in range(5):
                await transaction.execute("SELECT 1", prepare=True)
        await line.drop()
        assert between.withheld >= 2


# 10. Unknown commits


@pytest.mark.parametrize("outcome", [None, Suspended(None), Completed('"over"')])
async def test_a_commit_whose_answer_was_lost_is_no_loss_and_no_double(
    scene: Scene, worker: int, outcome: Outcome | None
) -> None:
    """The batch is durable, the connection breaks before that is told, and the worker learns it from the rows."""
    workflow, other = scene.run(worker), scene.run(worker)
    async with proxy(scene.database.dsn) as between:
        journal = Journal(Database(between.dsn), worker)
        journal.start()
        first = scene.write(workflow, [row("1")])
        journal.write(first)
        assert await scene.fates(first) == ["committed"]
        between.cut_after = b"cut here"
        writes = [scene.write(workflow, [row("2", '"cut here"')], outcome), scene.write(other, [row("1")])]
        for write in writes:
            journal.write(write)
        assert await scene.fates(*writes) == ["committed", "committed"]
        assert between.cuts == 1
        await journal.close()
    completed_at = scene.one("SELECT completed_at FROM history WHERE workflow_id = %s AND location = '2'", workflow)
    assert scene.told(writes[0]) == completed_at, "the time that was told is the one that is recorded"
    assert scene.locations(workflow) == ["1", "2"]
    if isinstance(outcome, Completed):
        assert scene.one("SELECT status, output::text FROM workflows WHERE id = %s", workflow) == (
            "completed",
            '"over"',
        )


async def test_a_commit_that_never_came_about_is_made_again(scene: Scene, worker: int) -> None:
    """The connection breaks before the batch is executed."""
    workflow = scene.run(worker)
    journal = Journal(scene.database, worker)
    journal.start()
    cut = 0

    def cutting() -> None:
        nonlocal cut
        cut += 1
        if cut == 1:
            scene.do(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE '%%journal'"
            )

    with faults.install({"journal.before": cutting}):
        write = scene.write(workflow, [row("1")], Suspended(None))
        journal.write(write)
        assert await scene.fates(write) == ["committed"]
    assert scene.locations(workflow) == ["1"]
    await journal.close()
