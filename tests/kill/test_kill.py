"""Workers killed hundreds of times under a mixed load. About 40 seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgflow.cli.replay import check
from pgflow.definitions.descriptors import Registry
from pgflow.store.database.connections import Database
from pgflow.store.queries.histories import Histories
from tests.kill.load import WORKFLOWS
from tests.kill.storm import rage

KILLS = ENDS = 200
"""Deaths, and workflows that must have ended, before it is calm."""


@pytest.mark.timeout(1200)
def test_nothing_is_lost_or_done_twice(dsn: str, tmp_path: Path) -> None:
    log = tmp_path / "workers.log"
    storm = rage(dsn, log, kills=KILLS, ends=ENDS, seed=1)
    assert not storm.violations, "\n".join([*storm.violations[:40], log.read_text()[-4000:]])
    assert sum(storm.killed.values()) >= KILLS
    assert len(storm.killed) > 5, "workers are to die at many places"
    assert storm.workflows > ENDS
    registry = Registry(WORKFLOWS)
    with Database(dsn).connect_blocking("test") as connection:
        replayed = check(
            Histories(connection, "pgflow"),
            {name: registry.get(name) for name in registry.names},
            ["completed"],
            100_000,
        )
    assert (replayed.divergences, replayed.other_output, replayed.checked) == ([], 0, storm.workflows), (
        "each history tells the same again"
    )
