"""The page of SQL recipes: each of them runs, and finds something if there is something to find."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.schema.sample import Sample, fill

PAGE = Path(__file__).parent.parent.parent / "docs" / "sql.md"


def recipes() -> list[Any]:
    """The page's blocks, by the headings above them."""
    found: list[Any] = []
    heading = ""
    for part in re.finditer(
        r"^## ([^\n]+)$|^```sql\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        if part[1]:
            heading = part[1]
        else:
            found.append(pytest.param(heading, part[2], id=f"{len(found)} {heading}"))
    return found


def test_they_are_all_found() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(recipes()) == text.count("```sql") >= 20


@pytest.fixture(scope="module")
def filled(server_dsn: str, template: str) -> Any:
    """One database for all of them; what they write is undone."""
    from tests import databases

    with databases.database(server_dsn, template) as dsn:
        sample = fill(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute("ANALYZE")
            connection.commit()
            yield connection, sample


@pytest.mark.parametrize(("heading", "recipe"), recipes())
def test_recipe(filled: tuple[psycopg.Connection[Any], Sample], heading: str, recipe: str) -> None:
    connection, sample = filled
    id = sample.failed if "failed" in heading else sample.listening if "family" in heading else sample.looping
    with connection.transaction(force_rollback=True):
        cursor = connection.execute(recipe.replace(":'id'", f"'{id}'").encode())
        rows = cursor.fetchall()
        assert cursor.description is not None
    assert rows, "it found nothing in a database that has something of everything"
    for number, column in enumerate(cursor.description):
        # Columns that may be empty are few; a wrong name in a JSON path would leave one empty everywhere.
        if column.name in ("error", "message", "next_attempt", "at", "deadline", "holds", "active_rows"):
            assert any(row[number] is not None for row in rows), column.name
