"""Runs are looked up by their ids whatever the statistics say.

After a vacuum that finds `runs` empty the planner believes that its whole index is one page. Until the next one,
perhaps minutes later, it reads the whole index for every join that allows it.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.store.scene import Scene

STATEMENTS = {
    "journal": [
        "journal_fence",
        "journal_rows",
        "journal_consumed",
        "journal_aside",
        "journal_outcomes",
        "journal_stopped",
        "journal_result",
    ],
    "journal of ends": ["journal_fence", "journal_outcomes", "journal_result"],
    "signals of workflows": ["crossing_fence", "signal_crossing", "signal_send"],
    "children": ["crossing_fence", "dispatch_crossing", "dispatch"],
    "signals": ["signal_given", "signal_send"],
    "dispatches": ["dispatch_given", "dispatch"],
    "claim": ["claim"],
    "claim of what a hint names": ["claim_hinted"],
    "claim of suspects": ["claim_suspected"],
    "runs claimed": ["claimed_runs"],
    "history claimed": ["claimed_history"],
    "delivery": ["mail_deliver"],
    "outputs": ["standings_read"],
    "loops": ["loops_fence"],
    "transactional activity": ["transaction_fence"],
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_reads_all_runs_after_they_were_vacuumed_away(scene: Scene, name: str) -> None:
    scene.do("VACUUM (ANALYZE) runs")
    fill = (
        "INSERT INTO runs (workflow_id, name, status) SELECT gen_random_uuid(), 'flow', 'paused' FROM "
        "generate_series(1, 2000)"
    )
    scene.do(fill)
    scene.do("DELETE FROM runs")
    scene.do("VACUUM (ANALYZE, TRUNCATE false) runs")
    scene.do(fill)
    for node, only_if in nodes(await plan(scene, STATEMENTS[name])):
        if node.get("Relation Name") == "runs" or node.get("Index Name", "").startswith("runs_"):
            # Where each row gets values of its own there has to be a join; it is left out when there is nothing to
            # write.
            assert "Index Cond" in node or node["Node Type"] == "ModifyTable" or only_if, node


async def plan(scene: Scene, parts: list[str]) -> Any:
    """The plan that serves every execution of a statement, as the engine's connections have it."""
    places: list[str] = []

    def place(found: re.Match[str]) -> str:
        if found[1] not in places:
            places.append(found[1])
        return f"${places.index(found[1]) + 1}"

    text = b"".join(scene.database.statement(part) for part in parts).decode()
    text = re.sub(r"%\((\w+)\)s", place, text).replace("%%", "%")
    async with await scene.database.connect("explain") as connection:
        await connection.execute(f"PREPARE asked AS {text}".encode())
        cursor = await connection.execute(
            f"EXPLAIN (FORMAT JSON) EXECUTE asked ({', '.join(['NULL'] * len(places))})".encode()
        )
        row = await cursor.fetchone()
        assert row is not None
        return row[0] if isinstance(row[0], list) else json.loads(row[0])


def nodes(tree: Any, only_if: bool = False) -> list[tuple[dict[str, Any], bool]]:
    """All nodes of a plan, and whether a condition that is checked once stands above each."""
    found = []
    if isinstance(tree, dict):
        only_if = only_if or "One-Time Filter" in tree
        if "Node Type" in tree:
            found.append((tree, only_if))
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            found += nodes(each, only_if)
    return found
