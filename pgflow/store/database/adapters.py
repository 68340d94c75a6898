"""How values travel: the engine has its own adapters, whatever the application has registered with psycopg.

psycopg copies `psycopg.adapters` into each new connection, and a connection's into its cursors. The engine's
connections are opened with `ADAPTERS` instead, and on a connection of the application's the engine uses cursors of its
own, which have them as well: what they read and write is the same everywhere, and nothing is changed for anybody else.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
from psycopg import postgres
from psycopg.adapt import AdaptersMap, Buffer, Transformer
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow
from psycopg.types.array import register_all_arrays
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg.types.string import TextLoader

from pgflow.codec.unreadable import parsed
from pgflow.store.database.encodings import storable
from pgflow.store.database.stored_moments import BinaryMoments, Moments


def _pristine() -> AdaptersMap:
    """psycopg's own, as if nobody had registered anything."""
    types = type(psycopg.adapters.types)()
    postgres.register_default_types(types)
    made = AdaptersMap(types=types)
    postgres.register_default_adapters(made)
    register_all_arrays(made)
    set_json_loads(parsed, made)  # otherwise what was set for all contexts would hold here too
    set_json_dumps(json.dumps, made)
    return made


class _Text(TextLoader):
    """Returns a `str` even where the connection's encoding says nothing about characters."""

    def load(self, data: Buffer) -> Any:
        found = super().load(data)
        return found if isinstance(found, str) else bytes(data).decode(errors="replace")


ADAPTERS = _pristine()
"""As a context of psycopg's it stands for UTF-8, ISO and UTC: what the sessions of the engine's connections are set to.
JSON that Python does not read is given as its text, marked as such (`pgflow.codec.unreadable`)."""

CAREFUL = AdaptersMap(ADAPTERS)
"""For the engine's connections: reads any moment (`stored_moments.py`), which takes longer."""
CAREFUL.register_loader("timestamptz", BinaryMoments)
CAREFUL.register_loader("timestamptz", Moments)

_ANYWHERE = AdaptersMap(CAREFUL)
for _name in ("text", "varchar", "bpchar", "name", '"char"'):
    _ANYWHERE.register_loader(_name, _Text)


class AnswerReader:
    """Reads answers without cursors, the shortest way first, and carefully where that fails."""

    __slots__ = ("_transformer",)

    def __init__(self) -> None:
        self._transformer = Transformer(ADAPTERS)

    def rows(self, result: PGresult, first: int = 0, last: int | None = None) -> list[tuple[Any, ...]]:
        """Rows of an answer, from the first to, not including, the last of these numbers."""
        end = result.ntuples if last is None else last
        self._transformer.set_pgresult(result)
        try:
            return self._transformer.load_rows(first, end, tuple)
        except psycopg.DataError:
            careful = Transformer(CAREFUL)
            careful.set_pgresult(result)
            return careful.load_rows(first, end, tuple)


class _Adapted:
    """A cursor with the engine's adapters, on anybody's connection."""

    @property
    def adapters(self) -> AdaptersMap:
        """The engine's, not the connection's."""
        return _ANYWHERE


class OwnCursor(_Adapted, psycopg.Cursor[TupleRow]):
    """A cursor for anybody's connection; texts that its encodings lack are escaped where they may be."""

    def execute(self, query: Any, params: Any = None, **how: Any) -> OwnCursor:
        """As psycopg's."""
        super().execute(query, storable(self.connection, params), **how)
        return self


class OwnAsyncCursor(_Adapted, psycopg.AsyncCursor[TupleRow]):
    """As `OwnCursor`, on an asynchronous connection."""

    async def execute(self, query: Any, params: Any = None, **how: Any) -> OwnAsyncCursor:
        """As psycopg's."""
        await super().execute(query, storable(self.connection, params), **how)
        return self
