"""How long workflows are kept: statements that set, take back and list it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pgflow.definitions.retry import FOREVER
from pgflow.model.info import RetentionRule
from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query
from pgflow.store.queries.operating import AuditNote, call


def set_retention(
    schema: str, name: str, keep: float | None, failed: float | None, missing_ok: bool, note: AuditNote
) -> Query[Any]:
    """The statement that sets how many seconds workflows of a name are kept, and failed ones; None: as it is."""
    asked = {"name": name, "keep": _text(keep), "failed": _text(failed), "missing_ok": missing_ok}
    begun = "set_retention(%(name)s::text, %(keep)s::text, %(failed)s::text, %(missing_ok)s::boolean"
    return call(schema, begun, asked, note)


def reset_retention(schema: str, name: str, note: AuditNote) -> Query[bool]:
    """The statement that takes back what was set for a name."""
    return call(schema, "reset_retention(%(name)s::text", {"name": name}, note)


def rules(schema: str) -> Query[list[RetentionRule]]:
    """The statement that lists what is set, and what code declares."""
    return Query(statement("retention_list", schema), {}, _rules)


def _rules(rows: Sequence[tuple[Any, ...]]) -> list[RetentionRule]:
    return [RetentionRule(name, _duration(keep), _duration(failed), *rest) for name, keep, failed, *rest in rows]


def _text(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return FOREVER if math.isinf(seconds) else f"{seconds:.6f} seconds"


def _duration(seconds: float | None) -> timedelta | str | None:
    if seconds is None:
        return None
    return FOREVER if math.isinf(seconds) else timedelta(seconds=seconds)
