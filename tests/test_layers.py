"""The house as it is built: which floor may import which, where SQL stands, how long a file is, what is documented,
what is exported.

About 6 seconds.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pgflow

PACKAGE = Path(pgflow.__file__).parent
LONGEST = 500
"""Lines of a file, at most."""

FLOORS = (
    ("errors", "faults", "forking", "version"),
    ("codec",),
    ("history",),
    ("model", "uuid7"),
    ("observe",),
    ("definitions", "ports"),
    ("execution", "store"),
    ("database_metrics", "decorators", "embedded", "testing", "worker"),
    ("client",),
    ("cli",),
)
"""From the ground up. A room (a module or a package) imports from itself and from the floors below its own."""

WITHIN = {
    "execution": (("event_loop",), ("activities",), ("engine",), ("checks", "steps"), ("context",), ("execute",)),
    "store": (
        ("database",),
        ("leasing", "queries", "schema"),
        ("doctor", "exchange", "journal", "notify"),
        ("client",),
    ),
}
"""The floors within a room."""

PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "datetime",
    "functools",
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
    """All imports of the package, those for type checkers too: file and line, room, what is imported."""
    for path in modules():
        for line, name in imported(tree_of(path)):
            yield f"{name_of(path)}:{line}", room_of(path), name


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and names of the modules that are imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"line {node.lineno}: expected an absolute import"
            if node.module.split(".")[0] == "pgflow":
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def module_of(name: str) -> str | None:
    """The dotted name of the package's file that an import reads."""
    while name:
        if name in FILES:
            return name
        name = name.rpartition(".")[0]
    return None


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


def test_imports_go_down_within_a_room() -> None:
    for room, floors in WITHIN.items():
        level = {part: number for number, floor in enumerate(floors) for part in floor}
        parts = {
            path.relative_to(PACKAGE / room).with_suffix("").parts[0] for path in modules() if room_of(path) == room
        }
        assert parts - {"__init__"} == set(level), f"give each part of {room} its place in WITHIN"
        wrong = [
            f"{place}: imports {name}"
            for place, own, name in imports()
            if own == room and name.startswith(f"pgflow.{room}.")
            if (mine := place.split("/")[1].split(".py")[0]) != (other := name.split(".")[2])
            if level[other] >= level.get(mine, 99)
        ]
        assert wrong == []


def test_no_file_imports_what_imports_it() -> None:
    """No circle among files, however long, imports for type checkers included."""
    arrows = {
        own: {found for _, name in imported(tree_of(path)) if (found := module_of(name)) and found != own}
        for own, path in FILES.items()
    }
    while loose := {own for own, others in arrows.items() if not others & arrows.keys()}:
        for own in loose:
            del arrows[own]
    assert arrows == {}, "each of these is on a circle, or imports one that is"


def test_nothing_private_is_used_elsewhere() -> None:
    """What begins with an underscore is its own file's; what other packages and tuples call so is not meant."""
    wrong = []
    for path in modules():
        strange = PRIVATE - privates_of(path) - OF_OTHERS
        wrong += [
            f"{name_of(path)}:{node.lineno}: {alias.name}"
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pgflow")
            for alias in node.names
            if alias.name.startswith("_")
        ]
        wrong += [
            f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Attribute) and node.attr in strange
        ]
    assert wrong == []


def test_what_has_landed_stays() -> None:
    """Migrations take nothing from the living store: it changes, and they must not."""
    for path in sorted((PACKAGE.parent / "alembic" / "versions").glob("*.py")):
        assert [name for _, name in imported(tree_of(path)) if name.startswith("pgflow.")] == [], path


def test_history_is_pure() -> None:
    assert [
        f"{place}: {name}" for place, own, name in imports() if own == "history" and name.split(".")[0] not in PURE
    ] == []


def test_execution_and_store_are_sisters() -> None:
    """They share plain data and ports; execution sees no database."""
    for place, own, name in imports():
        if own == "model":
            assert name.split(".")[0] in sys.stdlib_module_names or name.startswith(
                ("pgflow.model", "pgflow.history")
            ), place
        if own == "execution":
            assert name.split(".")[0] not in ("psycopg", "sqlalchemy") and not name.startswith("pgflow.store"), place
        if own == "store" and name.startswith("pgflow.execution"):
            assert name == "pgflow.ports", place


def test_sql_stands_in_the_store_alone() -> None:
    wrong = []
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Constant) or room_of(path) == "store":
                continue
            text = node.value
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


FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in modules()
}
DEFINED = {node.name for path in modules() for node in tree_of(path).body if isinstance(node, ast.ClassDef)}


def privates_of(path: Path) -> set[str]:
    """What the classes of a file keep to themselves: methods, and attributes of `self`."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in found if re.match(r"_[a-z]", name)}


OF_OTHERS = {"_asdict", "_fields", "_make", "_replace", "_args", "_callback", "_cancelled", "_loop", "_wait"}
"""What named tuples and asyncio's handles call so."""
PRIVATE = {name for path in modules() for name in privates_of(path)}


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
