"""The house as it is built: which floor may import which, where SQL stands, how long a file is, what is documented,
what is exported.

About 2 seconds.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pgflow

PACKAGE = Path(pgflow.__file__).parent
LONGEST = 580
"""Lines of a file, at most."""

FLOORS = (
    ("errors", "faults", "forking", "version"),
    ("codec",),
    ("history",),
    ("model", "uuid7"),
    ("definitions", "ports"),
    ("execution", "store"),
    ("decorators", "embedded", "testing", "worker"),
    ("client",),
    ("cli",),
)
"""From the ground up. A room (a module or a package) imports from itself and from the floors below its own."""

PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "datetime",
    "hashlib",
    "itertools",
    "json",
    "pgflow",
    "typing",
    "uuid",
}
"""What pure history may import: no input, no output, no clock of its own, no database."""

STATEMENT = re.compile(
    r"\b(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|CREATE\s+(TABLE|INDEX|SCHEMA|VIEW)\s|BEGIN;|COMMIT;)",
    re.IGNORECASE,
)


ELSEWHERE = re.compile(r"`(\w+)` says what each of these is")
"""A protocol of one class's members, which are documented where they are defined."""


def modules() -> list[Path]:
    """Every file of the package, the wheel's copy of the migrations aside."""
    return sorted(path for path in PACKAGE.rglob("*.py") if "migrations" not in path.relative_to(PACKAGE).parts[:1])


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports() -> Iterator[tuple[str, str, str]]:
    """All imports of the package: file and line, room, what is imported."""
    for path in modules():
        for line, name in imported(tree_of(path)):
            yield f"{name_of(path)}:{line}", room_of(path), name


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and names of the modules that are imported at run time, wherever in the file."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"line {node.lineno}: expected an absolute import"
            if node.module == "pgflow":
                yield from ((node.lineno, f"pgflow.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module
        else:
            yield from imported(node)


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(path) for path in modules()} - {"__init__"}
    assert rooms == {room for floor in FLOORS for room in floor}, "give a new room its place in FLOORS"


def test_imports_go_down() -> None:
    level = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    wrong = [
        f"{place}: imports {name}"
        for place, own, name in imports()
        if own != "__init__" and name.startswith("pgflow.") and name.split(".")[1] != own
        if level.get(name.split(".")[1], 0) >= level.get(own, 99)
    ]
    assert wrong == []


def test_history_is_pure() -> None:
    assert [
        f"{place}: {name}" for place, own, name in imports() if own == "history" and name.split(".")[0] not in PURE
    ] == []


def test_execution_asks_through_ports() -> None:
    """It sees no database, and the store sees nothing of it but the interfaces."""
    for place, own, name in imports():
        if own == "execution":
            assert name.split(".")[0] not in ("psycopg", "sqlalchemy"), place
        if own == "store" and name.startswith("pgflow.execution"):
            assert name == "pgflow.ports", place


def test_sql_stands_in_the_store_alone() -> None:
    wrong = []
    for path in modules():
        for node in ast.walk(tree_of(path)):
            text = node.value if isinstance(node, ast.Constant) and room_of(path) != "store" else None
            if isinstance(text, bytes):
                text = text.decode(errors="replace")
            if isinstance(text, str) and (found := STATEMENT.search(text)):
                wrong.append(f"{name_of(path)}:{node.lineno}: {found[0]}")
    assert wrong == []


def test_files_are_short_and_say_what_they_are() -> None:
    for path in modules():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= LONGEST, f"{name_of(path)} is two files"
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path
        assert not text or ast.get_docstring(tree_of(path)), f"{name_of(path)} does not say what it is"


def test_names_are_unique() -> None:
    """One name for one thing: no two files of one stem, no two public classes of one name. The generated twins are
    named as what they are made from.
    """
    own = [path for path in modules() if "sync" not in path.relative_to(PACKAGE).parts]
    stems = [path.stem for path in own if path.stem not in ("__init__", "__main__")]
    classes = [
        node.name
        for path in own
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [name for name, times in Counter(stems + classes).items() if times > 1] == []


def test_what_is_public_is_documented() -> None:
    """Functions, classes and methods without an underscore; what overrides a base's method need not say it again."""
    missing = []
    for path in modules():
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        if path.name in ("guard.py", "__main__.py"):  # programs
            continue
        missing += [f"{name}: {what}" for what, found in members(importlib.import_module(name)) if not found.__doc__]
    assert missing == []


DEFINED = {node.name for path in modules() for node in tree_of(path).body if isinstance(node, ast.ClassDef)}


def members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What a module defines itself and shows: functions, classes, their own methods and properties."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            if value.__doc__ and (said := ELSEWHERE.search(value.__doc__)):
                assert said[1] in DEFINED, f"{module.__name__}.{name}: there is no {said[1]}"
                continue
            for inner, method in vars(value).items():
                shown = isinstance(
                    method, FunctionType | property | classmethod | staticmethod
                ) and not inner.startswith("_")
                if shown and not any(hasattr(base, inner) for base in value.__bases__):
                    yield f"{name}.{inner}", method


def test_what_is_exported() -> None:
    """The list is sorted and complete: nothing is imported into the package's top that it does not name."""
    (assigned,) = (node for node in tree_of(PACKAGE / "__init__.py").body if isinstance(node, ast.Assign))
    names = ast.literal_eval(assigned.value)
    found = {
        alias.asname or alias.name
        for node in tree_of(PACKAGE / "__init__.py").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names == sorted(names) and set(names) == found
    assert all(hasattr(pgflow, name) for name in names)
