"""DSNs of several hosts: the one that answered last is asked first.

Finding out that a host is frozen takes as long as a connection may take. Without this each connection would find out
anew.
"""

from __future__ import annotations

from typing import Any

import psycopg

_answered: dict[tuple[str, str, str], int] = {}
"""Which of the hosts of a DSN answered last: their names, addresses and ports, and its place among them."""

_LISTS = ("host", "hostaddr", "port")


def reordered(given: dict[str, Any]) -> dict[str, str]:
    """The words of a DSN that name its hosts, in the order in which to ask them; empty if the DSN has them in that
    order.

    Args:
        given: The words of the DSN.
    """
    place = _answered.get(_key(given))
    if not place:
        return {}
    found = {}
    for name in _LISTS:
        words = str(given.get(name) or "").split(",")
        if len(words) > place:
            found[name] = ",".join([words[place], *words[:place], *words[place + 1 :]])
    return found


def note(given: dict[str, Any], connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Remember that one of the hosts has answered."""
    lists = [str(given.get(name) or "").split(",") for name in _LISTS]
    several = max(map(len, lists))
    if several == 1:
        return
    info = connection.info
    for place in range(several):
        host, address, port = (words[place] if place < len(words) else words[0] for words in lists)
        if (host or address) in (info.host, info.hostaddr) and port in ("", str(info.port)):
            _answered[_key(given)] = place
            return


def _key(given: dict[str, Any]) -> tuple[str, str, str]:
    host, address, port = (str(given.get(name) or "") for name in _LISTS)
    return host, address, port
