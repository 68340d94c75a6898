"""Stored histories as a check reads them: as a claim would, in batches, each of one moment; nothing is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from uuid import UUID

import psycopg
import pytest

from pgflow.client.filters import STATUSES
from pgflow.history.stored import StoredHistory
from pgflow.store.database.connections import Database
from pgflow.store.queries import histories
from pgflow.store.queries.histories import Histories
from tests.schema.sample import Sample, fill


@pytest.fixture
def sample(dsn: str) -> Sample:
    return fill(dsn)


@pytest.fixture
def reader(dsn: str, sample: Sample) -> Iterator[Histories]:
    with Database(dsn).connect_blocking("test") as connection:
        yield Histories(connection, "pgflow")


def test_columns_are_those_of_a_claim() -> None:
    """A replay must read what a worker reads, and always the arguments, as a strict one does."""

    def columns(file: str, after: str, until: str) -> str:
        text = " ".join((resources.files("pgflow.store") / "sql" / f"{file}.sql").read_text().split())
        found = re.search(f"{re.escape(after)}(.*?){re.escape(until)}", text, re.S)
        assert found is not None
        return found[1].rstrip(", ")

    claimed = columns("claimed_history", "LATERAL ( SELECT ", " FROM {schema}.events")
    claimed = claimed.replace(
        "CASE WHEN %(inputs)s::boolean OR e.kind = 'removed' THEN e.input::text END", "e.input::text"
    )
    assert columns("histories", "SELECT w.id, ", "w.name,") == claimed


def test_histories_of_all_kinds(reader: Histories, sample: Sample) -> None:
    found = {one.id: one for one in reader.select(["checkout", "collect", "approve", "remind"], STATUSES, 100)}
    assert {id for id in sample if id is not None} <= set(found)
    looping = found[sample.looping]
    assert [event.location for event in looping.events] == ["1", "1,a21,1", "1,a21,2"]
    assert looping.events[0].loop_state == '{"page": 20}' and looping.events[1].turn_state == '{"page": 20}'
    assert looping.input == '{"order": {"number": 7}}'
    assert found[sample.completed].output == '"größe"' and found[sample.completed].status == "completed"
    assert found[sample.failed].status == "failed" and found[sample.failed].error is not None
    assert found[sample.pending].events == [] and found[sample.pending].input == '{"order": {"number": 7}}'
    assert found[sample.child].parent_id == sample.listening
    assert found[sample.sleeping].tags == {} and found[sample.sleeping].seed == sample.sleeping


def test_by_name_status_and_limit(reader: Histories, sample: Sample) -> None:
    def ids(names: list[str], statuses: tuple[str, ...], limit: int = 100) -> list[UUID]:
        return [one.id for one in reader.select(names, statuses, limit)]

    assert ids(["remind"], STATUSES) == [sample.sleeping]
    assert ids(["checkout"], ("completed",)) == [sample.completed]
    assert set(ids(["checkout"], ("failed", "completed"))) == {sample.failed, sample.completed}
    live = ids(["checkout"], STATUSES, 4)
    assert len(live) == 4 and sample.completed not in live, "those that may go on are first"
    assert ids(["checkout"], STATUSES, 5)[-1] == sample.completed
    assert ids(["nobody"], STATUSES) == []
    assert reader.others(["checkout", "approve"]) == {"parked": 1, "remind": 1, "collect": 1}


@pytest.mark.parametrize("bound", [0, 40, 1 << 20])
def test_batches_lose_and_double_nothing(
    reader: Histories, sample: Sample, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    names = ["checkout", "collect", "approve", "remind", "parked"]
    whole = {one.id: one for one in reader.select(names, STATUSES, 100)}
    monkeypatch.setattr(histories, "BATCH_BYTES", bound)
    monkeypatch.setattr(histories, "BATCH", 3)
    monkeypatch.setattr(histories, "PAGE", 4)
    found = list(reader.select(names, STATUSES, 100))
    assert len(found) == len(whole) == 10
    for one in found:
        assert (one.events, one.input, one.status) == (whole[one.id].events, whole[one.id].input, whole[one.id].status)
    assert [one.id for one in reader.read([UUID(int=1), sample.failed, UUID(int=2**128 - 1)])] == [sample.failed]


def test_nothing_can_be_written(dsn: str) -> None:
    with Database(dsn).connect_blocking("test") as connection:
        Histories(connection, "pgflow")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), connection.transaction():
            connection.execute("DELETE FROM pgflow.events")


def test_large_payloads_are_not_held_together(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(dsn, autocommit=True) as sql:
        for _ in range(6):
            sql.execute("SELECT pgflow.dispatch('big', json_build_object('text', repeat('x', 100000)))")
    monkeypatch.setattr(histories, "BATCH_BYTES", 250_000)
    sizes = []
    with Database(dsn).connect_blocking("test") as connection:
        reader = Histories(connection, "pgflow")
        batch = reader._batch

        def counted(ids: list[UUID]) -> list[StoredHistory]:
            found = batch(ids)
            sizes.append(len(found))
            return found

        monkeypatch.setattr(reader, "_batch", counted)
        assert len(list(reader.select(["big"], STATUSES, 100))) == 6
    assert sizes == [3, 3]


def test_tags_are_those_given_at_dispatch(dsn: str, sample: Sample, reader: Histories) -> None:
    """What activities have made of them since, the code never sees."""
    with psycopg.connect(dsn, autocommit=True) as sql:
        given = "UPDATE pgflow.workflows SET tags_given = tags, tags = '{\"stage\": 2}' WHERE id = %s"
        sql.execute(given, [sample.pending])
    assert [one.tags for one in reader.read([sample.pending])] == [{"customer": 7}]
