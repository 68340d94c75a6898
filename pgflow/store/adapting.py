"""How values travel: adapters of the engine's own, whatever the application has registered in psycopg's.

psycopg copies `psycopg.adapters` into each new connection, and a connection's into its cursors. The engine's connections are opened
with `ADAPTERS` instead, and on a connection of the application's the engine uses cursors of its own, which have them as well: what
they read and write is the same everywhere, and nothing is changed for anybody else.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg import postgres
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Buffer
from psycopg.rows import TupleRow
from psycopg.types.array import register_all_arrays
from psycopg.types.datetime import TimestamptzBinaryLoader, TimestamptzLoader
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg.types.string import TextLoader

from pgflow.store.encodings import storable


def _pristine() -> AdaptersMap:
    """psycopg's own, as if nobody had registered anything."""
    types = type(psycopg.adapters.types)()
    postgres.register_default_types(types)
    made = AdaptersMap(types=types)
    postgres.register_default_adapters(made)
    register_all_arrays(made)
    set_json_loads(json.loads, made)  # else what was set for all contexts holds here as well
    set_json_dumps(json.dumps, made)
    return made


class _Text(TextLoader):
    """Gives a `str` also where the connection's encoding says nothing of the characters."""

    def load(self, data: Buffer) -> Any:
        found = super().load(data)
        return found if isinstance(found, str) else bytes(data).decode(errors="replace")


class _Moment(TimestamptzLoader):
    """Reads what the server has been told to write, ISO and UTC, whatever a pooler has said of the session."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, None)


class _MomentBinary(TimestamptzBinaryLoader):
    """As `_Moment`."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, None)


ADAPTERS = _pristine()
"""For the engine's connections. As a context of psycopg's it stands for UTF-8, ISO and UTC: what their sessions are set to."""

_ANYWHERE = AdaptersMap(ADAPTERS)
for _name in ("text", "varchar", "bpchar", "name", '"char"'):
    _ANYWHERE.register_loader(_name, _Text)
_ANYWHERE.register_loader("timestamptz", _MomentBinary)
_ANYWHERE.register_loader("timestamptz", _Moment)


class OwnCursor(psycopg.Cursor[TupleRow]):
    """A cursor with the engine's adapters, on anybody's connection; texts that its encodings lack are escaped where they may be."""

    @property
    def adapters(self) -> AdaptersMap:
        """The engine's, not the connection's."""
        return _ANYWHERE

    def execute(self, query: Any, params: Any = None, **how: Any) -> OwnCursor:
        """As psycopg's."""
        super().execute(query, storable(self.connection, params), **how)
        return self


class OwnAsyncCursor(psycopg.AsyncCursor[TupleRow]):
    """As `OwnCursor`, on an asynchronous connection."""

    @property
    def adapters(self) -> AdaptersMap:
        """The engine's, not the connection's."""
        return _ANYWHERE

    async def execute(self, query: Any, params: Any = None, **how: Any) -> OwnAsyncCursor:
        """As psycopg's."""
        await super().execute(query, storable(self.connection, params), **how)
        return self
