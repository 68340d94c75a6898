"""The same figures without pgflow: plain files, plain loops. The report compares."""

from __future__ import annotations

import ast
import os
import sysconfig
from concurrent.futures import ProcessPoolExecutor

DIRECTORY = "CATALOGUE_DIRECTORY"
"""The environment variable that names another directory than the standard library's."""

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def all_files() -> list[str]:
    """Every Python file of the standard library, or of the directory that was chosen."""
    root = os.environ.get(DIRECTORY) or sysconfig.get_path("stdlib")
    found: list[str] = []
    for place, directories, names in os.walk(root):
        if place == root:
            directories[:] = [d for d in directories if d not in ("site-packages", "__pycache__", "lib-dynload")]
        found.extend(os.path.join(place, name) for name in names if name.endswith(".py"))
    return found


def figures_of(path: str) -> tuple[int, int, int, int, int]:
    """Files (1), lines, functions, classes and definitions without a docstring of one file."""
    with open(path, "rb") as opened:
        source = opened.read()
    lines = source.count(b"\n")
    try:
        stack: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):
        return 1, lines, 0, 0, 0
    functions = classes = undocumented = 0
    while stack:
        node = stack.pop()
        stack.extend(ast.iter_child_nodes(node))
        if isinstance(node, _DEFINITIONS):
            classes += isinstance(node, ast.ClassDef)
            functions += not isinstance(node, ast.ClassDef)
            first = node.body[0]
            documented = (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            )
            undocumented += not documented
    return 1, lines, functions, classes, undocumented


def count() -> tuple[int, ...]:
    """The totals of the whole library."""
    with ProcessPoolExecutor() as pool:
        figures = list(pool.map(figures_of, all_files(), chunksize=50))
    return tuple(sum(column) for column in zip(*figures, strict=True))
