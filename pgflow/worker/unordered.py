"""Finds where a workflow's code iterates over a `set` and takes steps meanwhile, in its source, before it runs.

A set of strings, or of the application's own objects, has another order in each process. Only what is plainly a set in
the function itself is found: `set(...)`, `{...}`, and names to which nothing else is assigned.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

_ANY_ORDER = frozenset({"sorted", "set", "frozenset", "sum", "min", "max", "any", "all", "len"})
"""Functions for which the order of their argument does not matter."""


def unordered(fn: Callable[..., Any]) -> list[str]:
    """The places (file, line, function) at which a function iterates over a set and calls or awaits something for each.

    Example:
        for place in unordered(checkout.fn):
            print(place)
    """
    try:
        function = inspect.unwrap(fn)
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, ValueError, SyntaxError):
        return []  # it has no source, or its source cannot be parsed alone
    file, name = inspect.getsourcefile(function), getattr(function, "__qualname__", "")
    sets = _names_of_sets(tree)
    found = sorted({node.lineno for node in _iterated(tree) if _is_set(node, sets)})
    return [f"{file}:{first + line - 1} in {name}" for line in found]


def _iterated(tree: ast.AST) -> Iterator[ast.expr]:
    harmless = {
        id(argument)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _ANY_ORDER
        for argument in call.args
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor):
            if any(_acts(statement, ast.Await) for statement in node.body):
                yield node.iter
        elif isinstance(node, ast.ListComp | ast.GeneratorExp) and id(node) not in harmless:
            if _acts(node.elt, ast.Call):
                yield from (generator.iter for generator in node.generators)


def _acts(node: ast.AST, how: type[ast.AST]) -> bool:
    return any(isinstance(inner, how) for inner in ast.walk(node))


def _names_of_sets(tree: ast.AST) -> set[str]:
    given: dict[str, list[ast.expr | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    given.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            given.setdefault(node.target.id, []).append(node.value)
    assigned = {id(target) for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets}
    assigned |= {id(node.target) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign | ast.AugAssign)}
    for node in ast.walk(tree):  # a loop's variable, an unpacked tuple, a parameter: it may be anything
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in assigned:
            given.setdefault(node.id, []).append(None)
        elif isinstance(node, ast.arg):
            given.setdefault(node.arg, []).append(None)
    return {
        name for name, values in given.items() if all(value is not None and _is_set(value, set()) for value in values)
    }


def _is_set(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Set):  # of numbers it has the same order everywhere
        return not all(isinstance(one, ast.Constant) and isinstance(one.value, int) for one in node.elts)
    if isinstance(node, ast.SetComp):
        return True
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left, names) or _is_set(node.right, names)
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
