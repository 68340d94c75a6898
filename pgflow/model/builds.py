"""Builds: the versions of an application's code, and which of two is the newer one."""

from __future__ import annotations

import re

_PART = re.compile(r"\d+|[^\W\d_]+")


def build_order(build: str) -> str:
    """A text by which builds are compared as version numbers, character by character (in the database: collation C).

    A build is a row of numbers and words; what stands between them only separates. Numbers are compared as numbers and
    words as words, whatever their case. Where one goes on and the other has ended, a number is more than nothing and a
    word is less, as in rc1. A `v` before the first number is left out.

    Args:
        build: such as "2026.11.30-1", "1.4.0rc2" or "v17".

    Raises:
        ValueError: nothing in it can be compared.

    Example:
        >>> builds = ["1.10", "1.9", "1.10rc1", "1.10.1"]
        >>> sorted(builds, key=build_order)
        ['1.9', '1.10rc1', '1.10', '1.10.1']
    """
    if not isinstance(build, str) or not 0 < len(build) <= 200 or not build.isprintable():
        raise ValueError(f"build={build!r:.300}: expected a version of 1 to 200 printable characters")
    parts = _PART.findall(build.casefold())
    if len(parts) > 1 and parts[0] == "v" and parts[1].isdecimal():
        del parts[0]
    if not parts:
        raise ValueError(f"build={build!r}: expected a version with a number or a word in it, such as 2026.11.30-1")
    return "".join(map(_ordered, parts)) + "m"


def _ordered(part: str) -> str:
    """One part, so that words < the end ("m") < numbers, and longer numbers come after shorter ones."""
    if not part.isdecimal():
        return f"a{part} "
    number = str(int(part))
    return f"n{len(number):03d}{number}"
