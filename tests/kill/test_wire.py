"""Workers on a wire that cuts, delays, freezes and delivers late what was sent long ago. About 20 seconds.

`python -m tests.soak --wire 1 --life 1000` does the same for as long as you let it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kill.storm import rage
from tests.kill.wire import wire

ENDS = 300
"""Workflows that must have ended before the wire is calm."""


@pytest.mark.timeout(1200)
def test_nothing_comes_back_late(dsn: str, tmp_path: Path) -> None:
    log = tmp_path / "workers.log"
    with wire(dsn, mean_peace=0.7, seed=1) as between:
        storm = rage(dsn, log, kills=0, ends=ENDS, seed=1, workers=2, mean_life=1000, live=100, through=between)
    assert not storm.violations, "\n".join([*storm.violations[:40], log.read_text()[-4000:]])
    assert between.befell["late"] > 20, "what was sent on cut connections is to come late"
    assert storm.workflows >= ENDS
