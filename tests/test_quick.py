"""The quick subset names tests that exist, and has some of each area."""

from __future__ import annotations

from pathlib import Path

from tests.quick import QUICK

TESTS = Path(__file__).parent

SLOW_BY_NATURE = {"examples", "failover", "kill", "types"}
"""Whole demonstrations, servers of their own, storms, and a type checker's run."""


def test_each_line_names_tests_that_are_there() -> None:
    for line in QUICK:
        path, _, name = line.partition("::")
        assert (TESTS.parent / path).exists(), f"tests/quick.py names {path}, which is gone"
        assert name in (TESTS.parent / path).read_text(encoding="utf-8") if name else True, f"{path} has no {name}"


def test_each_area_has_some() -> None:
    areas = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert {line.split("/")[1] for line in QUICK if line.count("/") > 1} >= areas - SLOW_BY_NATURE
