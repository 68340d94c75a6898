"""Locations: where a step stands in the execution of a workflow's code, with room between any two.

A location is a tuple of coordinates, one per level of nesting; a coordinate is a tuple of ordinates, more than one
where a step was inserted. It is stored as text that sorts, byte by byte, in execution order.
"""

from __future__ import annotations

Coordinate = tuple[int, ...]
Location = tuple[Coordinate, ...]


def between(previous: Coordinate, next: Coordinate) -> Coordinate:
    """A coordinate strictly between two neighbours; `()` as `previous` is the start.

    Raises:
        ValueError: `previous` does not come before `next`.
    """
    if not previous < next:
        raise ValueError(f"expected {previous} to come before {next}")
    if next[: len(previous)] == previous:
        rest = next[len(previous) :]
        zeros = 0
        while rest[zeros] == 0:
            zeros += 1
        if rest[zeros:] == (1,):
            zeros += 1
        return (*previous, *([0] * zeros), 1)
    if len(previous) > len(next):
        return (*previous[:-1], previous[-1] + 1)
    return (*previous, 1)


def encode_number(number: int) -> str:
    """The stored form of an ordinate, e.g. `a10`."""
    return NUMBERS[number] if number < len(NUMBERS) else _encode_number(number)


def _encode_number(number: int) -> str:
    digits = str(number)
    return digits if len(digits) == 1 else chr(ord("a") + len(digits) - 2) + digits


NUMBERS = [_encode_number(number) for number in range(1000)]
"""The stored forms of the first ordinates: nearly all steps are at one of these."""


def encode_coordinate(coordinate: Coordinate) -> str:
    """The stored form of one coordinate, e.g. `a10.1`."""
    return ".".join(map(encode_number, coordinate))


def decode_coordinate(stored: str) -> Coordinate:
    """The coordinate that a stored form stands for.

    Raises:
        ValueError: it is no stored form.
    """
    numbers = []
    for ordinate in stored.split("."):
        digits = ordinate[1:] if ordinate[:1].isalpha() else ordinate
        if not (digits.isascii() and digits.isdigit()) or encode_number(int(digits)) != ordinate:
            raise ValueError(f"{stored!r} is no stored coordinate: expected e.g. '7', 'a12' or '1.1'")
        numbers.append(int(digits))
    return tuple(numbers)


def encode(location: Location) -> str:
    """The stored form of a location, e.g. `2,a10.1`."""
    return ",".join(map(encode_coordinate, location))


def decode(stored: str) -> Location:
    """The location that a stored form stands for; "" is the root."""
    return tuple(map(decode_coordinate, stored.split(","))) if stored else ()


def display(location: str | Location) -> str:
    """A location for people, e.g. `{2, 10.1}`; a text that is no location is returned as it is."""
    try:
        where = decode(location) if isinstance(location, str) else location
    except ValueError:
        return f"{{{location}}}"
    return "{" + ", ".join(".".join(map(str, coordinate)) for coordinate in where) + "}"


def parse_displayed(text: str) -> Location:
    """The location that `display` shows as `text`.

    Raises:
        ValueError: no location is displayed like this.
    """
    inside = text.strip()
    if not (inside.startswith("{") and inside.endswith("}")):
        raise ValueError(f"{text!r} is no displayed location: expected e.g. '{{2, 10.1}}'")
    inside = inside[1:-1].strip()
    if not inside:
        return ()
    return tuple(tuple(map(_ordinate, part.strip().split("."))) for part in inside.split(","))


def _ordinate(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
        raise ValueError(f"{digits!r} is no ordinate: expected a whole number")
    return int(digits)


def subtree(stored: str) -> tuple[str, str]:
    """The half-open range of stored locations under one, itself not included."""
    return stored + ",", stored + "-"


def turn(loop: str, index: int) -> str:
    """The stored location of a loop's turn, counted from 0."""
    return f"{loop},{encode_number(index + 1)}"


def turns(loop: str, first: int, last: int) -> tuple[str, str]:
    """The half-open range of stored locations of a loop's turns `first` up to, not including, `last`."""
    return turn(loop, first), turn(loop, last)
