"""What is written once, for an event loop, and generated for threads. About 2 seconds."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pgflow
from pgflow.store.client import on_loop, on_threads

PACKAGE = Path(pgflow.__file__).parent
ROOT = PACKAGE.parent
SCRIPT = Path("scripts", "sync_twins.py")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sync_twins", ROOT / SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(root / SCRIPT), "--check"], capture_output=True, text=True)


def test_the_twins_are_what_the_script_makes() -> None:
    done = check(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("changed", ["pgflow/client/handle.py", "pgflow/store/client/sync/pool.py"])
def test_a_change_of_one_of_two_is_noticed(tmp_path: Path, script: ModuleType, changed: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in ("scripts", *script.TWINS):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    assert check(tmp_path).returncode == 0
    with open(tmp_path / changed, "a") as file:
        file.write("\n\nCHANGED = True\n")
    done = check(tmp_path)
    assert done.returncode == 1 and Path(changed).name in done.stdout


def test_their_folders_hold_nothing_else(script: ModuleType) -> None:
    for folder, sources in script.TWINS.items():
        found = {path.stem for path in (ROOT / folder / "sync").glob("*.py")}
        assert found == {*sources, "__init__"}, f"{folder}/sync is generated: write the source, and name it in {SCRIPT}"
    assert {str(path.relative_to(ROOT).parent) for path in PACKAGE.rglob("sync")} == {*script.TWINS}


def test_no_pair_of_files_is_kept_by_hand() -> None:
    """Such pairs go by names like these."""
    kept = [path.name for path in PACKAGE.rglob("*.py") if re.search(r"(^|_)(a?sync|blocking)(_|\.)", path.name)]
    assert kept == []


def test_an_event_loop_and_threads_have_the_same_words(script: ModuleType) -> None:
    """Each function and each method of the one is there in the other, and takes the same arguments."""

    def translated(name: str) -> str:
        for pattern, word in script.words():
            name = re.sub(pattern, word, name)
        return name

    assert sorted(translated(name) for name in on_loop.__all__) == on_threads.__all__
    for name in on_loop.__all__:
        one, other = getattr(on_loop, name), getattr(on_threads, translated(name))
        if inspect.isfunction(one) and one.__module__ == on_loop.__name__:
            assert [*inspect.signature(one).parameters] == [*inspect.signature(other).parameters], name
        if inspect.isclass(one) and one.__module__ == on_loop.__name__ and inspect.isclass(other):
            for method, function in vars(one).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    parameters = inspect.signature(getattr(other, method)).parameters
                    assert [*inspect.signature(function).parameters] == [*parameters], f"{name}.{method}"


def files() -> Iterator[tuple[str, set[str]]]:
    """The clients' files, and what they import of pgflow; what stands under TYPE_CHECKING counts."""
    for folder in ("client", "store/client"):
        for path in (PACKAGE / folder).rglob("*.py"):
            name = ".".join(("pgflow", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
            found = set()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module is not None:
                    found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            yield name, found


def test_the_clients_files_know_each_other_one_way_only() -> None:
    left = dict(files())
    while left:
        free = [name for name, imported in left.items() if not imported & (left.keys() - {name})]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]
