"""How moments are read from rows that anybody may have written by SQL: an odd one must not keep the rows beside it from
being read.

Those that Python's calendar does not hold (infinity, years before 1 and after 9999) are read as its first or last day.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from psycopg.types.datetime import register_default_adapters

from pgflow.model.moments import LAST

FIRST = datetime(1, 1, 2, tzinfo=UTC)
"""The first moment that is read."""

_DEFAULT = AdaptersMap(types=psycopg.adapters.types)
"""psycopg's own, whatever the application has registered."""
register_default_adapters(_DEFAULT)

_LONG = struct.Struct("!q")


class Moments(Loader):
    """As psycopg reads them, ISO and UTC whatever a pooler has said of the session, and the nearest
    where it refuses.
    """

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        found = _DEFAULT.get_loader(oid, self.format)
        assert found is not None
        self._load = found(oid, None).load

    def load(self, data: Buffer) -> Any:
        """A moment within the calendar."""
        try:
            return self._load(data)
        except psycopg.DataError:
            return FIRST if self._is_early(bytes(data)) else LAST

    def _is_early(self, data: bytes) -> bool:
        return data.startswith(b"-") or data.endswith(b"BC")


class BinaryMoments(Moments):
    """As `Moments`, from their binary form."""

    format = Format.BINARY

    def _is_early(self, data: bytes) -> bool:
        return bool(_LONG.unpack(data)[0] < 0)
