"""Clients and workers of roles that `pgflow db roles` has made: what each may, and that it may nothing else.

About 5 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow.cli import main
from pgflow.errors import WorkflowNotFound
from pgflow.store.schema import roles
from pgflow.uuid7 import uuid7
from tests import databases

Denied = psycopg.errors.InsufficientPrivilege


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def charge(ctx: pgflow.ActivityContext, cents: int) -> int:
    if cents < 0:
        raise ValueError(f"{cents} is below zero")
    return cents


@pgflow.signal
@dataclass
class Approved:
    by: str


@pgflow.workflow
async def pay(ctx: pgflow.WorkflowContext, cents: int) -> str:
    paid = await ctx.activity(charge, cents)
    approved = await ctx.listen(Approved)
    return f"{paid} by {approved.by}"


KINDS = ("worker", "reader", "auditor", "operator", "sender")


@pytest.fixture(scope="module")
def dsns(server_dsn: str, template: str) -> Iterator[dict[str, str]]:
    """The DSNs of the owner and of each role; an auditor is a reader who sees payloads."""
    names = {kind: f"{kind}_{uuid4().hex[:8]}" for kind in KINDS}
    with databases.database(server_dsn, template) as dsn, psycopg.connect(dsn, autocommit=True) as connection:
        for name in names.values():
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'".encode())
        try:
            for kind, name in names.items():
                known = "reader" if kind == "auditor" else kind
                roles.apply(dsn, "pgflow", [roles.Grant(name, known, payloads=kind == "auditor")])
            yield {"owner": dsn} | {
                kind: make_conninfo(dsn, user=name, password="secret") for kind, name in names.items()
            }
        finally:
            for name in names.values():
                connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.fixture
def owner(dsns: dict[str, str]) -> Iterator[pgflow.SyncClient]:
    with pgflow.SyncClient(dsns["owner"]) as client:
        yield client


def do(dsn: str, statement: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


async def test_each_does_its_part(dsns: dict[str, str]) -> None:
    """A sender starts and signals, a worker runs, an operator retries, a reader looks."""
    async with (
        pgflow.Worker(dsns["worker"], workflows=[pay]),
        pgflow.Client(dsns["sender"]) as sender,
        pgflow.Client(dsns["operator"], actor="kim") as operator,
        pgflow.Client(dsns["reader"]) as reader,
        pgflow.Client(dsns["auditor"]) as auditor,
        pgflow.Client(dsns["worker"]) as client,
    ):
        handle = await sender.dispatch(pay, 700, id=(id := uuid7()), tags={"customer": 7})
        assert handle.id == id
        await sender.signal(Approved("eva"), to=id)
        assert await client.output(id, timeout=60) == "700 by eva"
        failed = await sender.dispatch(pay, -1)
        with pytest.raises(pgflow.WorkflowFailed):
            await client.output(failed.id, timeout=60)
        await operator.retry(failed.id, reason="once more")
        waiting = await sender.dispatch(pay, 1)
        assert await operator.cancel(waiting.id)
        with pytest.raises(pgflow.WorkflowCancelled):
            await client.output(waiting.id, timeout=60)
        for looking, sees in ((reader, False), (auditor, True)):
            found = await looking.get(id)
            assert (found.status, found.tags, found.name) == ("completed", {"customer": 7}, "pay")
            assert found.output == ("700 by eva" if sees else None)
            assert found.input == ({"cents": 700} if sees else {"unreadable": None})
            assert [info.id for info in await looking.list(tags={"customer": 7})] == [id]
            steps = await looking.history(id)
            assert [step.kind for step in steps] == ["activity", "listen"]
            assert [step.output for step in steps][:1] == ([700] if sees else [None])
            assert [entry.actor for entry in await looking.audit(failed.id)] == ["kim"]
        assert await auditor.output(id) == "700 by eva"
        with pytest.raises(pgflow.PgflowError, match="permission denied.*--payloads"):
            await reader.output(id)


def test_a_sender_starts_as_others_do(dsns: dict[str, str], owner: pgflow.SyncClient) -> None:
    """The same ids, tags, moments and refusals, one or many, on a connection of its own or of the caller's."""
    with pgflow.SyncClient(dsns["sender"], payload_limit=4 << 20) as sender:
        id = uuid7()
        first = sender.start(pay.options(id=id, tags={"a": 1}, queue="slow", priority=3), 1)
        assert sender.dispatch(pay, 2, id=id).id == first.id
        found = owner.get(id)
        assert (found.input, found.tags, found.queue, found.priority) == ({"cents": 1}, {"a": 1}, "slow", 3)
        with pytest.raises(ValueError, match='belongs to a workflow "pay", expected "other"'):
            sender.dispatch("other", id=id)
        one = sender.dispatch("alone", unique=True, tags={"b": 1})
        assert sender.dispatch("alone", unique=True, tags={"b": 1}).id == one.id
        many = sender.dispatch_many("many", [{"n": n} for n in range(5)])
        assert [owner.get(handle.id).input for handle in many] == [{"n": n} for n in range(5)]
        large = sender.dispatch("large", text="x" * (2 << 20))
        assert owner.get(large.id).name == "large"
        with psycopg.connect(dsns["sender"]) as connection:
            kept = sender.dispatch("joined", connection=connection)
            sender.signal(Approved("kim"), to=kept.id, connection=connection)
            connection.commit()
            gone = sender.dispatch("joined", connection=connection)
            connection.rollback()
        assert owner.get(kept.id).status == "pending"
        with pytest.raises(WorkflowNotFound):
            owner.get(gone.id)


def test_a_sender_signals_as_others_do(dsns: dict[str, str], owner: pgflow.SyncClient) -> None:
    with pgflow.SyncClient(dsns["sender"]) as sender:
        flow = owner.dispatch(pay, 1, tags={"signalled": True})
        id = uuid7()
        assert (
            sender.signal(Approved("eva"), to=flow.id, id=id) == id == sender.signal(Approved("eva"), to=flow.id, id=id)
        )
        sender.signal(Approved("kim"), workflow=pay, tags={"signalled": True})
        query = "SELECT body->>'by' FROM pgflow.signals WHERE workflow_id = %s ORDER BY arrival"
        assert do(dsns["owner"], query, flow.id) == [("eva",), ("kim",)]
        with pytest.raises(ValueError, match='belongs to a signal "approved"'):
            sender.signal(Approved("eva"), to=owner.dispatch(pay, 2).id, id=id)
        with pytest.raises(WorkflowNotFound, match="there is no workflow"):
            sender.signal(Approved("eva"), to=uuid7())
        with pytest.raises(WorkflowNotFound, match="no live workflow"):
            sender.signal(Approved("eva"), workflow="unknown")
        assert sender.signal(Approved("eva"), workflow="unknown", missing_ok=True) is None
        owner.terminate(flow.id)
        with pytest.raises(WorkflowNotFound, match="is cancelled, nothing was sent"):
            sender.signal(Approved("eva"), to=flow.id)


def test_senders_and_operators_notify(dsns: dict[str, str], owner: pgflow.SyncClient) -> None:
    """Work is heard of as it is from others, once; and not where the client sends no hints."""
    with psycopg.connect(dsns["owner"], autocommit=True) as listener:
        channels = [f"pgflow_{kind}_b0e190599d32269b" for kind in ("wake", "mail", "done")]
        for channel in channels:
            listener.execute(f"LISTEN {channel}".encode())

        def heard() -> list[str]:
            return sorted(note.channel.split("_")[1] for note in listener.notifies(timeout=0.2))

        with pgflow.SyncClient(dsns["sender"]) as sender, pgflow.SyncClient(dsns["operator"]) as operator:
            flow = sender.dispatch("told")
            assert heard() == ["wake"]
            sender.signal(Approved("eva"), to=flow.id)
            assert heard() == ["mail"]
            with psycopg.connect(dsns["sender"]) as connection:
                sender.dispatch("told", connection=connection)
            assert heard() == ["wake"]
            operator.cancel(flow.id)
            assert "done" in heard()
        with pgflow.SyncClient(dsns["sender"], hints=False) as sender:
            flow = sender.dispatch("told")
            sender.signal(Approved("eva"), to=flow.id)
            assert heard() == []


REFUSED = {
    "worker": [
        "CREATE TABLE pgflow.mine (id int)",
        "ALTER TABLE pgflow.runs ADD COLUMN mine int",
        "DROP TABLE pgflow.runs",
        "TRUNCATE pgflow.events",
        "CREATE INDEX ON pgflow.runs (name)",
        "UPDATE pgflow.schema_info SET version = 1",
        "INSERT INTO pgflow.audit (actor, role, operation) VALUES ('eva', 'eva', 'cancel')",
        "UPDATE pgflow.audit SET actor = 'eva'",
        "INSERT INTO pgflow.roles (role, kind) VALUES ('eva', 'worker')",
        "SELECT pgflow.end_cancelled(pgflow.uuid7(), NULL)",
    ],
    "reader": [
        "SELECT input FROM pgflow.workflows",
        "SELECT * FROM pgflow.workflow_overview",
        "SELECT output FROM pgflow.history",
        "SELECT error FROM pgflow.events",
        "SELECT body FROM pgflow.signals",
        "SELECT problem FROM pgflow.dead_signals",
        "SELECT body FROM pgflow.messages",
        "UPDATE pgflow.runs SET priority = 1",
        "DELETE FROM pgflow.workflows",
        "SELECT pgflow.dispatch('greet')",
        "SELECT pgflow.cancel(pgflow.uuid7())",
    ],
    "operator": [
        "SELECT count(*) FROM pgflow.workflows",
        "SELECT count(*) FROM pgflow.workflow_overview",
        "SELECT count(*) FROM pgflow.audit",
        "DELETE FROM pgflow.runs",
        "SELECT pgflow.dispatch('greet')",
        "SELECT pgflow.signal(pgflow.uuid7(), 'approved')",
        "SELECT pgflow.end_cancelled(pgflow.uuid7(), NULL)",
        "SELECT pgflow.write_audit('cancel', NULL, NULL, NULL, 'eva')",
        "SELECT pgflow.must_exist(pgflow.uuid7(), 'x')",
        "SELECT pgflow.find_live('pay', '{}')",
    ],
    "sender": [
        "SELECT count(*) FROM pgflow.workflows",
        "INSERT INTO pgflow.runs (workflow_id, name, status) VALUES (pgflow.uuid7(), 'greet', 'pending')",
        "SELECT pgflow.cancel(pgflow.uuid7())",
        "SELECT pgflow.terminate(pgflow.uuid7())",
        "SELECT pgflow.operate_many('cancel', '{}')",
        "SELECT pgflow.send_signal(pgflow.uuid7(), 'approved', '{}')",
        "SELECT pgflow.find_live('pay', '{}')",
    ],
}


@pytest.mark.parametrize(("kind", "statement"), [(kind, text) for kind, texts in REFUSED.items() for text in texts])
def test_nothing_else(dsns: dict[str, str], kind: str, statement: str) -> None:
    with pytest.raises(Denied):
        do(dsns[kind], statement)


def test_a_reader_looks_at_everything_but_payloads(dsns: dict[str, str], owner: pgflow.SyncClient) -> None:
    id = owner.dispatch(pay, 5).id
    reader = dsns["reader"]
    assert do(reader, "SELECT status, queue FROM pgflow.workflow_overview WHERE id = %s", id) == [
        ("pending", "default")
    ]
    for name, relation in roles.RELATIONS.items():
        assert do(reader, f"SELECT count({'*' if not relation.payloads else 'name'}) FROM pgflow.{name}") is not None
    for arguments in (["show", str(id)], ["history", str(id)], ["list", "--name", "pay", "--limit", "1"]):
        result = CliRunner().invoke(main, ["workflow", *arguments, "--dsn", reader])
        assert result.exit_code == 0, result.output
    with pgflow.SyncClient(reader) as client:
        assert client.dead_signals() == []
        assert "no living worker" in client.explain(id).reasons[0]
        assert "default" in [queue.name for queue in client.queues.list()]
        assert client.list(error_type="NoSuchError", tags={"a": 1}) == []
        assert client.list(error_type="NoSuchError", queue="slow") == []
        assert client.count(status=["failed", "pending"], queue="default") > 0
        for refused in (lambda: client.dispatch(pay, 1), lambda: client.export(id)):
            with pytest.raises(pgflow.PgflowError, match="permission denied"):
                refused()
        with pytest.raises(pgflow.PgflowError, match="permission denied for function pause.*pgflow db roles"):
            client.pause(id)


def test_the_database_knows_who_it_was(dsns: dict[str, str], owner: pgflow.SyncClient) -> None:
    """A function that runs with the rights of the owner still notes the role that called it."""
    id = owner.dispatch(pay, 5).id
    do(dsns["operator"], "SELECT pgflow.pause(%s, reason => 'why not')", id)
    (entry,) = owner.audit(id)
    assert entry.role == entry.actor == do(dsns["operator"], "SELECT current_user")[0][0]


def test_bulk_by_ids_and_by_a_filter(dsns: dict[str, str], owner: pgflow.SyncClient) -> None:
    """Ids are all that an operator needs; to look for workflows is a reader's right."""
    ids: list[UUID] = [owner.dispatch("bulk").id for _ in range(3)]
    with pgflow.SyncClient(dsns["operator"]) as operator:
        assert sorted(operator.pause_many(ids=ids).done) == sorted(ids)
        with pytest.raises(pgflow.PgflowError, match="permission denied for view workflow_overview|for table"):
            operator.resume_many(name="bulk")


def test_a_reader_reads_by_every_method_that_reads(dsns: dict[str, str], owner: pgflow.SyncClient) -> None:
    """Also of a workflow that waits for a child and has unread and dead signals."""
    parent, child = owner.dispatch("parent"), owner.dispatch("child")
    do(
        dsns["owner"],
        "INSERT INTO pgflow.events (workflow_id, location, kind, name, status, input) "
        "VALUES (%s, '1', 'child_output', 'child', 'pending', json_build_object('id', %s::text))",
        parent.id,
        child.id,
    )
    do(
        dsns["owner"],
        "INSERT INTO pgflow.signals (id, workflow_id, name, body, number, dropped_at, problem) "
        "VALUES (pgflow.uuid7(), %s, 'approved', '{}', 1, now(), 'no one'), "
        "(pgflow.uuid7(), %s, 'approved', '{}', 2, NULL, NULL)",
        parent.id,
        parent.id,
    )
    do(dsns["owner"], "UPDATE pgflow.runs SET status = 'sleeping', wake_at = NULL WHERE workflow_id = %s", parent.id)
    with pgflow.SyncClient(dsns["reader"]) as reader:
        for client in (owner, reader):
            found = client.explain(parent.id)
            assert found.reasons
        (letter,) = reader.dead_signals(parent.id)
        assert (letter.name, letter.body) == ("approved", None) and "not shown to this role" in letter.problem
        assert {queue.name for queue in reader.queues.list()} >= {"default"}
        assert reader.get(parent.id).status == "sleeping"
        assert reader.history(parent.id)[0].kind == "child_output"
        assert reader.doctor().checks == owner.doctor().checks
        assert not [found for found in reader.doctor().findings if "could not be made" in found.found]
        for statuses in (None, "failed", ["pending", "sleeping"], "completed", "cancelled"):
            reader.list(status=statuses, limit=1)
            reader.list(name="parent", status=statuses, error_type="ValueError", limit=1)
            reader.count(status=statuses)
        reader.list(waiting_for="approved")
        for words in ("workflow show", "workflow history", "signal list --dead --workflow", "audit"):
            result = CliRunner().invoke(main, [*words.split(), str(parent.id), "--dsn", dsns["reader"]])
            assert result.exit_code == 0, result.output
        reader.list(tags={"a": 1}, queue="default")


def failed_one(dsns: dict[str, str], owner: pgflow.SyncClient) -> UUID:
    """A workflow that has failed at its first step."""
    id = owner.dispatch("failed").id
    do(
        dsns["owner"],
        "INSERT INTO pgflow.events (workflow_id, location, kind, name, status, seq, error) "
        "VALUES (%s, '1', 'activity', 'charge', 'failed', 1, '{\"type\": \"ValueError\"}')",
        id,
    )
    do(
        dsns["owner"],
        "UPDATE pgflow.workflows SET status = 'failed', error = '{\"type\": \"ValueError\"}', completed_at = now() "
        "WHERE id = %s",
        id,
    )
    do(
        dsns["owner"],
        "UPDATE pgflow.runs SET status = 'failed', wake_at = NULL, reset = '{1}', epoch = 1 WHERE workflow_id = %s",
        id,
    )
    return id


def test_an_operator_operates_by_every_method_that_operates(dsns: dict[str, str], owner: pgflow.SyncClient) -> None:
    """Each leaves its row in the table audit, under the operator's role."""
    with pgflow.SyncClient(dsns["operator"]) as operator:
        one, two, three = (owner.dispatch("operated").id for _ in range(3))
        assert operator.update(one, queue="other", reason="r")
        assert operator.pause(one) and operator.resume(one)
        assert operator.cancel(one) and operator.terminate(two)
        for many in (operator.pause_many, operator.resume_many, operator.cancel_many):
            assert many(ids=[three]).done == [three]
        operator.retry(failed_one(dsns, owner))
        assert operator.fork(failed_one(dsns, owner), before="{1}").id
        operator.rewind(failed_one(dsns, owner), before="{1}")
        assert operator.retry_many(ids=[failed_one(dsns, owner)]).refused == {}
        assert operator.terminate_many(ids=[owner.dispatch("operated").id]).refused == {}
        letters = [uuid7(), uuid7()]
        receiver = owner.dispatch("operated").id
        for letter in letters:
            do(
                dsns["owner"],
                "INSERT INTO pgflow.signals (id, workflow_id, name, body, number, dropped_at, problem) "
                "VALUES (%s, %s, 'approved', '{}', 1, now(), 'no one')",
                letter,
                receiver,
            )
        operator.redeliver(letters[0], {"by": "eva"})
        operator.drop(letters[1])
        assert operator.prune(older_than=0, name="operated") >= 1
    name = do(dsns["operator"], "SELECT current_user")[0][0]
    found = do(dsns["owner"], "SELECT DISTINCT operation FROM pgflow.audit WHERE role = %s", name)
    assert {operation for (operation,) in found} >= {
        "update", "pause", "resume", "cancel", "terminate", "retry", "fork", "rewind", "redeliver", "drop", "prune",
    }  # fmt: skip
