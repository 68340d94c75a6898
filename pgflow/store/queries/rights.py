"""What a client's role may do, and statements that ask for no more than it may see.

`pgflow db roles` makes such roles: senders may write no table, and call functions instead; readers may see no payloads.
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeVar

import psycopg

from pgflow.errors import PgflowError
from pgflow.store.database.connections import quoted, statement
from pgflow.store.database.query import Query

T = TypeVar("T")

_PAYLOAD = re.compile(rb"\b[a-z]+\.(input|output|error|body|problem)\b(::text)?")


_NOT_SHOWN = b"'not shown to this role: it sees no payloads'::text"


def _hidden(found: re.Match[bytes]) -> bytes:
    """What stands in the place of a payload: a null, or, where there is always a text, one that says so."""
    return _NOT_SHOWN if found[1] == b"problem" else b"NULL" + (found[2] or b"::json")


class Rights(NamedTuple):
    """What a client can do with a database.

    Attributes:
        may_notify: Notifications can be sent, and are wanted.
        is_standby: The server is a standby: it sends none, and can only be read.
        writes: The role may write tables; else it may call functions, if anything.
        sees_payloads: The role may read inputs, outputs, errors and bodies.
    """

    may_notify: bool
    is_standby: bool
    writes: bool
    sees_payloads: bool

    def visible(self, query: Query[T]) -> Query[T]:
        """The same statement, with nulls in the place of payloads if the role may not see them."""
        if self.sees_payloads:
            return query
        return query._replace(sql=_PAYLOAD.sub(_hidden, query.sql))


def denied(error: psycopg.Error) -> PgflowError:
    """What is said when the role may not do what was asked for."""
    return PgflowError(
        f"{error.diag.message_primary or error}: the database's role of this client may not do that. `pgflow db roles` "
        "grants senders what starts and signals workflows, operators what operates them, and readers what finds them "
        "(payloads with --payloads)"
    )


UNKNOWN = Rights(may_notify=False, is_standby=False, writes=True, sees_payloads=True)
"""Until it has been asked: statements are sent as usual, and the server refuses what the role may not do."""


def find(schema: str) -> Query[Rights]:
    """The statement that asks what the role of its connection may do."""
    asked = {"runs": f"{quoted(schema)}.runs", "workflows": f"{quoted(schema)}.workflows"}
    return Query(statement("client_rights", schema), asked, lambda rows: Rights(*rows[0]))
