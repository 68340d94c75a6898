"""Finds calls in a workflow's code that a replay does not repeat (clocks, random numbers) or that block, in its
bytecode, before it runs.

The functions themselves are not replaced, since other threads use them too; so a call through a variable or a library
is not found. What is searched: the workflow's function, the functions inside it, and those of the same package that it
calls by name.
"""

from __future__ import annotations

import dis
import logging
import os
import random
import secrets
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime
from types import (
    BuiltinFunctionType,
    BuiltinMethodType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any, NamedTuple

from pgflow.definitions.descriptors import Registry
from pgflow.worker.unordered import unordered

_CLOCK = "`ctx.now()`"
_CHANCE = "`ctx.random()` or `ctx.uuid4()`"
_BLOCKS = "an activity: it blocks every other workflow of its process as well"

log = logging.getLogger("pgflow.worker")

_MOST = 200
"""Functions that are searched for one workflow, at most."""


class UnrepeatableCall(NamedTuple):
    """One call that a replay does not repeat."""

    name: str
    """What is called, as the code names it."""
    where: str
    """File, line and function."""
    instead: str


_logged: set[UnrepeatableCall] = set()
_logged_sets: set[str] = set()


def warn_of_unrepeatable(registry: Registry) -> None:
    """Log the calls in the workflows' code that a replay does not repeat, each place once a process."""
    for name in registry.names:
        for found in unrepeatable(registry.get(name).fn):
            if found not in _logged:
                _logged.add(found)
                log.warning(
                    'workflow "%s" calls %s at %s, which is another thing on each replay: its steps must not depend '
                    "on it. Use %s.",
                    name,
                    found.name,
                    found.where,
                    found.instead,
                )
        for place in unordered(registry.get(name).fn):
            if place not in _logged_sets:
                _logged_sets.add(place)
                log.warning(
                    'workflow "%s" iterates over a set at %s: unless it holds nothing but numbers, its order is '
                    "another one in each process, and so on each replay. Use `sorted(...)`, or a list or dict.",
                    name,
                    place,
                )


def unrepeatable(fn: Callable[..., Any]) -> list[UnrepeatableCall]:
    """The calls of a function that a replay does not repeat, in the order of its lines.

    Example:
        for found in unrepeatable(checkout.fn):
            print(found.name, found.where)
    """
    found: dict[UnrepeatableCall, None] = {}
    waiting: list[FunctionType] = []
    seen: set[CodeType] = set()
    function = _function(fn)
    if function is not None:
        waiting.append(function)
    while waiting and len(seen) < _MOST:
        function = waiting.pop(0)
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        for name, value, where in _loaded(function.__code__, function.__globals__, cells):
            instead = _INSTEAD.get(_key(value)) if _hashable(value) else None
            if instead is not None:
                found[UnrepeatableCall(name, where, instead)] = None
            called = _function(value)
            if called is not None and _package(called) == _package(function):
                waiting.append(called)
    return list(found)


def _function(value: Any) -> FunctionType | None:
    """The plain function behind a method or a decorator that uses `functools.wraps`; None if there is none."""
    for _ in range(10):
        if isinstance(value, MethodType):
            value = value.__func__
        if not isinstance(value, FunctionType):
            return None
        inner = value.__dict__.get("__wrapped__")
        if inner is None:
            return value
        value = inner
    return None


def _package(function: FunctionType) -> str:
    return (function.__module__ or "").partition(".")[0]


def _loaded(code: CodeType, names: dict[str, Any], cells: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """What the code loads by name, attributes of modules and classes included: the name, the value, and the place."""
    line = code.co_firstlineno
    current: tuple[str, Any] | None = None
    for instruction in dis.get_instructions(code):
        line = _line_of(instruction) or line
        operation, argument = instruction.opname, instruction.argval
        loaded: tuple[str, Any] | None = None
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            builtins = names.get("__builtins__", {})
            fallback = builtins if isinstance(builtins, dict) else vars(builtins)
            if argument in names or argument in fallback:
                loaded = argument, names.get(argument, fallback.get(argument))
        elif operation in ("LOAD_DEREF", "LOAD_CLASSDEREF") and argument in cells:
            try:
                loaded = argument, cells[argument].cell_contents
            except ValueError:
                loaded = None  # it is not filled yet
        elif (
            operation in ("LOAD_ATTR", "LOAD_METHOD")
            and current is not None
            and isinstance(current[1], ModuleType | type)
        ):
            value = vars(current[1]).get(argument)
            if value is not None:
                if isinstance(current[1], type) and current[1] in (datetime, date) and argument in _MOMENTS:
                    value = _MOMENTS[argument]
                loaded = f"{current[0]}.{argument}", value
        current = loaded if loaded is not None else current if operation in _BETWEEN else None
        if loaded is not None:
            yield loaded[0], loaded[1], f"{code.co_filename}:{line} in {code.co_qualname}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loaded(constant, names, cells)


def _line_of(instruction: dis.Instruction) -> int | None:
    line = instruction.starts_line
    if type(line) is bool:  # Python 3.13
        return getattr(instruction, "line_number", None)
    return line


_BETWEEN = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL"})


def _now() -> None: ...


_MOMENTS = {"now": _now, "utcnow": _now, "today": _now}


def _hashable(value: Any) -> bool:
    return isinstance(value, BuiltinFunctionType | BuiltinMethodType | FunctionType | MethodType | type)


def _key(value: Any) -> Any:
    return value.__func__ if isinstance(value, MethodType) else value


def _table() -> dict[Any, str]:
    table: dict[Any, str] = {_now: _CLOCK}
    clocks = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "localtime", "gmtime")
    table.update({getattr(time, name): _CLOCK for name in clocks})
    table[time.sleep] = "`await ctx.sleep(...)`"
    drawn = (
        "random",
        "randint",
        "randrange",
        "choice",
        "choices",
        "shuffle",
        "sample",
        "uniform",
        "gauss",
        "getrandbits",
        "expovariate",
    )
    table.update({_key(getattr(random, name)): _CHANCE for name in drawn})
    table.update(
        dict.fromkeys(
            (uuid.uuid1, uuid.uuid4, os.urandom, secrets.token_hex, secrets.token_bytes, secrets.token_urlsafe), _CHANCE
        )
    )
    table.update(dict.fromkeys((secrets.choice, secrets.randbelow), _CHANCE))
    blocks = (
        socket.socket,
        socket.create_connection,
        urllib.request.urlopen,
        subprocess.run,
        subprocess.Popen,
        os.system,
    )
    table.update(dict.fromkeys((*blocks, subprocess.check_output, subprocess.check_call, subprocess.call), _BLOCKS))
    return table


_INSTEAD = _table()
