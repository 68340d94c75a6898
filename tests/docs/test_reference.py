"""The reference pages are complete: every name that users import, every fault point, every field of a log record, every
logger.
"""

from __future__ import annotations

import json
import logging
import re

import pgflow
from pgflow.cli.logs import JsonFormatter
from tests.docs.page import ROOT

REFERENCE = ROOT / "docs" / "reference"
LOGS = (REFERENCE / "logs.md").read_text(encoding="utf-8")
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "pgflow").rglob("*.py"))}


def test_every_public_name_is_in_the_reference() -> None:
    shown = set(
        re.findall(r"^::: pgflow\.(\w+)$", "\n".join(path.read_text() for path in REFERENCE.glob("*.md")), re.MULTILINE)
    )
    assert "errors" in shown
    shown |= {name for name in dir(pgflow.errors) if not name.startswith("_")}
    twins = {name for name in pgflow.__all__ if name.startswith("Sync")}
    clients = (REFERENCE / "clients.md").read_text()
    assert [name for name in pgflow.__all__ if name not in shown | twins] == []
    assert [name for name in twins if f"`{name}`" not in clients] == []


def test_every_fault_point_is_in_the_table() -> None:
    used = set()
    for text in SOURCES.values():
        used |= set(re.findall(r"\b(?:reach|reached|hit|FaultPoint)\(\"([a-z_.]+)\"\)", text))
    assert len(used) > 20
    assert sorted(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", LOGS, re.MULTILINE)) == sorted({*used, *LOGGERS})


LOGGERS = {found[1] for text in SOURCES.values() for found in re.finditer(r"getLogger\(\"(pgflow\.\w+)\"\)", text)}


def test_every_field_of_a_record_is_in_the_table() -> None:
    try:
        raise ValueError
    except ValueError as error:
        record = logging.makeLogRecord({"exc_info": (type(error), error, error.__traceback__), "levelname": "INFO"})
    fields = json.loads(JsonFormatter().format(record))
    assert re.findall(r"^\| `(\w+)` \|", LOGS, re.MULTILINE) == list(fields)
