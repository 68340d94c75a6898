"""The arguments of a context's methods, checked where the code calls them: nothing is recorded of a call that is
refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgflow.definitions.decorated import Decorated, not_a_workflow, not_an_activity
from pgflow.definitions.packets import signal_name
from pgflow.history.events import KINDS, NAMELESS

_MOST = 2**31 - 1
"""The largest number that a column of 32 bits holds."""


def check_number(value: Any, what: str, least: int) -> int:
    """A whole number that a column can hold.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise ValueError(f"{what}={value!r}: expected a whole number from {least} to {_MOST:,}")
    return value


def check_version_number(version: Any, method: str) -> int:
    """A version of a workflow's code.

    Raises:
        ValueError: it is none.
    """
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= _MOST:
        raise ValueError(f"ctx.{method}({version!r}): expected a whole number; versions count from 1")
    return version


def check_closure(closure: Any, method: str) -> None:
    """Refuse what is not a function of a context.

    Raises:
        TypeError: it is not; for a value with a step of its own the message names that step.
    """
    if isinstance(closure, Decorated):
        refused = not_a_workflow if closure.sort == "activity" else not_an_activity
        raise refused(closure, f"ctx.{method}(...)")
    if not callable(closure):
        raise TypeError(f"ctx.{method}(...): expected a function of a context, found {closure!r:.80}")


def check_removed(kind: Any, name: Any) -> None:
    """Refuse a kind and name that no step can have had.

    Raises:
        ValueError: there is no such kind, or its steps have names and none is given.
        TypeError: the name is no text.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(
            f"ctx.removed({kind!r}): expected the kind of the step that stood there, one of {', '.join(sorted(KINDS))}"
        )
    if not isinstance(name, str):
        raise TypeError(f"ctx.removed({kind!r}, {name!r:.80}): expected the step's name as a text")
    if not name and kind not in NAMELESS:
        raise ValueError(
            f"ctx.removed({kind!r}): expected the name of the step as well, as history shows it: "
            f'ctx.removed({kind!r}, "...")'
        )


def named_signals(types: Sequence[Any], method: str) -> dict[str, type]:
    """Classes of signals by name.

    Raises:
        TypeError: there are none, one is no signal, or two have the same name: one of them would never come.
    """
    if not types:
        raise TypeError(f"ctx.{method}(): expected at least one signal class")
    named: dict[str, type] = {}
    for kind in types:
        name = signal_name(kind, f"ctx.{method}")
        other = named.setdefault(name, kind)
        if other is not kind:
            raise TypeError(
                f"ctx.{method}(...): the signal classes {other.__module__}.{other.__qualname__} and "
                f'{kind.__module__}.{kind.__qualname__} are both called "{name}". Give one of them another name, '
                '@pgflow.signal(name="..."), or listen for one.'
            )
    return named
