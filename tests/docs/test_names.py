"""What the pages name exists: files, functions in them, SQL files, and dotted names of the package."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from pgflow.store.schema.tables import make_metadata
from tests.docs.page import ROOT, blocks_of
from tests.docs.test_pages import PAGES
from tests.test_layers import FLOORS

NAMED_IN = [*PAGES, "CONTRIBUTING.md"]
TOP = ("alembic", "benchmarks", "docs", "examples", "pgflow", "scripts", "tests")
PYTHON = {path.name for top in TOP for path in (ROOT / top).rglob("*.py")}
SQL = {path.name for top in ("pgflow", "alembic") for path in (ROOT / top).rglob("*.sql")}
SCHEMA = "\n".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "alembic").rglob("*") if path.suffix in (".py", ".sql")
)


def code_of(page: str) -> list[str]:
    """What stands between backticks in the text of a page; `path::name` is a name in that file."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def defines(path: Path, name: str) -> bool:
    """Whether a file defines `Class`, `function` or `Class.method`."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for part in name.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == part
        ]
        if not found:
            return False
        body = found[-1].body
    return True


def resolves(dotted: str) -> bool:
    """Whether a dotted name can be imported, or is a table, a function or a setting of the schema."""
    parts = dotted.split(".")
    if len(parts) == 2 and re.search(rf"\b{parts[1]}\b", SCHEMA):
        return True
    for end in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


@pytest.mark.parametrize("page", NAMED_IN)
def test_what_a_page_names_is_there(page: str) -> None:
    own = {
        found[1]
        for block in blocks_of(ROOT / page)
        for found in re.finditer(r"^# (\w+\.py)$", block.text, re.MULTILINE)
    }
    missing = []
    for code in code_of(page):
        for path, name in re.findall(rf"(?<![\w/.-])((?:{'|'.join(TOP)})/[\w/.-]*\w)(?:::([\w.]+))?", code):
            if not (ROOT / path).exists() or (name and not defines(ROOT / path, name)):
                missing.append(f"{path}::{name}" if name else path)
        missing += [name for name in re.findall(r"(?<![\w/.])\w+\.py\b", code) if name not in PYTHON | own]
        missing += [name for name in re.findall(r"(?<![\w/.])\w+\.sql\b", code) if name not in SQL]
        missing += [name for name in re.findall(r"(?<![\w./-])pgflow(?:\.[A-Za-z_]\w*)+", code) if not resolves(name)]
    assert missing == []


ESSAYS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "pgflow").rglob("__init__.py") if "migrations" not in path.parts
)


@pytest.mark.parametrize("package", ESSAYS)
def test_what_an_essay_names_is_there(package: str) -> None:
    """At the head of a package: its files by their names, those of others by their paths, its folders with a slash."""
    path = ROOT / package
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    missing = [
        name
        for name in re.findall(r"(?<![\w/.])\w+\.py\b", text)
        if not (path.parent / name).exists() and name not in PYTHON
    ]
    missing += [name for name in re.findall(r"\bpgflow/[\w/]+(?:\.py)?", text) if not (ROOT / name).exists()]
    missing += [name for name in re.findall(r"^    (\w+)/ ", text, re.MULTILINE) if not (path.parent / name).is_dir()]
    missing += [name for name in re.findall(r"^    (\w+\.py)", text, re.MULTILINE) if not (path.parent / name).exists()]
    assert missing == []
    assert text, f"{package} does not say what stands in its folder and what goes on there"


def text_blocks(page: str) -> list[str]:
    return [block.text for block in blocks_of(ROOT / page) if block.language == "text"]


def test_the_map_has_every_folder() -> None:
    """The first picture of `docs/architecture.md`: folders end in a slash, and stand below the one that they are in."""
    shown: list[Path] = []
    around: list[tuple[int, Path]] = []
    for line in text_blocks("docs/architecture.md")[0].splitlines():
        column = len(line) - len(line.lstrip())
        around = [(depth, folder) for depth, folder in around if depth < column]
        above = around[-1][1] if around else ROOT
        names = re.split(r"\s{2,}", line.strip())[0].split()
        for name in names:
            if name.endswith("/"):
                shown.append(above / name.rstrip("/"))
                around.append((column, shown[-1]))
            else:
                assert (above / f"{name}.py").exists(), f"{name} is not in {above}"
    folders = {
        path
        for path in (ROOT / "pgflow").rglob("*")
        if path.is_dir() and path.name not in ("__pycache__", "migrations")
    }
    assert sorted(folders | {ROOT / "pgflow"}) == sorted(shown), (
        "the map in docs/architecture.md, and the folders of pgflow/"
    )


def test_the_floors_are_those_that_are_kept() -> None:
    """The second picture of `docs/architecture.md`, from the top, and `FLOORS` of `tests/test_layers.py`."""
    shown = [sorted(line.partition("#")[0].split()) for line in text_blocks("docs/architecture.md")[1].splitlines()]
    assert shown == [sorted(floor) for floor in reversed(FLOORS)], (
        "docs/architecture.md and FLOORS in tests/test_layers.py differ"
    )


def test_every_table_is_named() -> None:
    named = set(code_of("docs/architecture.md"))
    assert sorted({table.name for table in make_metadata("pgflow").tables.values()} - named) == []
