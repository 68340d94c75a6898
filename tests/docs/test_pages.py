"""Every code block of the README and of `docs/` is run. About a minute."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests import databases
from tests.docs.page import LANGUAGES, ROOT, Reader, blocks_of

ELSEWHERE = {
    ("docs/operations.md", "sql"): "tests/docs/test_operations.py",
    ("docs/sql.md", "sql"): "tests/schema/test_recipes.py",
    ("docs/versions.md", "python"): "tests/versions/test_documented.py",
}
"""Pages and languages that other tests run."""

PAGES = [str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [name for name in PAGES if blocks_of(ROOT / name)])
def test_a_page_does_what_it_says(name: str, server_dsn: str, template: str, place: Path) -> None:
    blocks = blocks_of(ROOT / name)
    migrates = any("pgflow db upgrade" in block.text for block in blocks)
    with databases.database(server_dsn, None if migrates else template) as dsn:
        reader = Reader(place, dsn)
        try:
            for block in blocks:
                if (name, block.language) not in ELSEWHERE:
                    reader.follow(block)
            reader.end()
        finally:
            reader.abandon()


@pytest.mark.parametrize("name", PAGES)
def test_no_block_is_overlooked(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = blocks_of(ROOT / name)
    assert text.count("```") == 2 * len(blocks), "a fence that is not at the start of its line, or does not end"
    assert {block.language for block in blocks} <= set(LANGUAGES)


def test_what_is_run_elsewhere() -> None:
    for (name, language), test in ELSEWHERE.items():
        assert any(block.language == language for block in blocks_of(ROOT / name))
        assert f'"{Path(name).name}"' in (ROOT / test).read_text(encoding="utf-8")


def test_the_site_leads_to_every_page() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"'([^']+\.md)'", repr(site["nav"]))
    assert sorted(f"docs/{name}" for name in named) == [name for name in PAGES if name != "README.md"], (
        "nav in zensical.toml, and docs/"
    )
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [name for name in named if name != "index.md" and f"]({name})" not in text] == [], (
        "docs/index.md does not link to these"
    )


def test_links_lead_somewhere() -> None:
    for name in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8")):
            assert "://" in target or (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"
