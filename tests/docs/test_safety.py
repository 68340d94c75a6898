"""The page of the rules: every test that it names exists, and all fourteen rules are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "safety.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)?::(\w+)`", PAGE)
    assert len(named) > 30
    file = ""
    for path, test in named:
        file = path or file
        assert f"def {test}(" in (TESTS / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_every_rule_has_one() -> None:
    assert re.findall(r"^\| (\d+)\. ", PAGE, re.MULTILINE) == [str(number) for number in range(1, 15)]
