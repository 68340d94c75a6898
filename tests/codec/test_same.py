"""What comes back is equal and of the same type, or is refused: generated annotations, with values that fit them,
nearly, or not at all.
"""

from __future__ import annotations

import collections
import typing
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Optional, Union
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import core_schema

from pgflow.codec import decode, decoding, encode
from pgflow.codec.exact import is_exact
from pgflow.errors import SerializationError
from tests.codec.values import (
    ID,
    NOW,
    Described,
    Doubled,
    Excluded,
    Held,
    Level,
    Lowered,
    Mixed,
    Name,
    Numbers,
    Odd,
    Pair,
    Plain,
    Private,
    Renamed,
    Row,
    Special,
    Stage,
    Stripping,
    Summed,
    Watched,
    Written,
    form,
    kinds,
    lenient,
    of,
    private,
    values,
)


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(kinds, values)
def test_what_comes_back_is_the_same_or_refused(annotation: Any, value: Any) -> None:
    try:
        text = encode(value, annotation, what="it")
    except SerializationError:
        return
    assert lenient(form(value), form(decode(text, annotation, what="it"))), (value, annotation, text)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([10**4000, -(2**70), 5e-324, 1e308, -0.0])
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(st.text("ab1", max_size=2), inner, max_size=3),
        st.builds(Plain, st.integers(), st.text("ab", max_size=2)),
        st.builds(Held, inner, st.none() | st.builds(Plain, st.integers())),
    ),
    max_leaves=6,
)
plain_annotations = st.recursive(
    st.sampled_from(
        [type(None), bool, int, float, str, Plain, Held, Special, Doubled, Written, Watched, Odd, Renamed, Described]
    ),
    lambda inner: st.one_of(
        inner.map(lambda a: of(list, a)),
        inner.map(lambda a: of(tuple, a, ...)),
        st.tuples(inner, inner).map(lambda pair: of(tuple, *pair)),
        inner.map(lambda a: of(dict, str, a)),
        inner.map(lambda a: Optional[a]),  # noqa: UP045
    ),
    max_leaves=3,
)


def fitting(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation, now and then others."""
    return st.one_of(st.from_type(annotation), st.from_type(annotation), plain_values)


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_not_looked_at_comes_back_as_it_is(data: st.DataObject) -> None:
    annotation = data.draw(plain_annotations)
    value = data.draw(fitting(annotation))
    if is_exact(value, annotation):
        try:
            text = encode(value, annotation, what="it")
        except SerializationError:
            return  # it cannot be held at all
        assert form(value) == form(decode(text, annotation, what="it")), (value, annotation, text)


def test_much_need_not_be_looked_at_and_the_rest_is() -> None:
    held = Held([1.5], Plain(1, "a"))
    alike: list[tuple[Any, Any]] = [
        (held, Held),
        ([held], list[Held]),
        ({"a": None}, dict[str, int | None]),
        ((1, "a"), tuple[int, str]),
        (Special(1), Special),
    ]
    for value, annotation in alike:
        assert is_exact(value, annotation)
    others: list[tuple[Any, Any]] = [
        (Special(1), Plain),
        (True, int),
        (1, float),
        ((1,), list[int]),
        ({1: 1}, dict[int, int]),
        (b"a", bytes),
        (NOW, datetime),
    ]
    for value, annotation in others:
        assert not is_exact(value, annotation)
    for value in (Doubled(1), Written(1), Watched(1), Odd(1), Renamed(1), Described(1)):
        assert not is_exact(value, type(value))


FITTING: list[tuple[Any, Any]] = [
    (bytes | str, b"\xffabc"),
    (bytes | str, "no base64!"),
    (datetime | str, "tomorrow"),
    (datetime | str, NOW),
    (Decimal | str, "seven"),
    (dict[int, str], {1: "a"}),
    (dict[Level, str], {Level.LOW: "a"}),
    (list[int] | set[str], {"a"}),
    (int | float, 3),
    (int | float, 3.0),
    (int | str, "3"),
    (float, 3),
    (list[float], [1, 2.5]),
    (tuple[int, ...], (1, 2)),
    (set[tuple[int, int]], {(1, 2)}),
    (deque[int], deque([1, 2])),
    (collections.defaultdict[str, int], collections.defaultdict(int, a=1)),
    (OrderedDict[str, int], OrderedDict(b=1, a=2)),
    (Mixed, Mixed.TEXT),
    (Mixed, Mixed.ONE),
    (Stage, Stage.FIRST),
    (Stage | str, "second"),
    (Plain | Special, Special(1, "a", 2)),
    (Pair, Pair(1)),
    (Row, {"at": NOW, "id": 1}),
    (Private, Private()),
    (Summed, Summed(n=1)),
    (float, -0.0),
    (datetime, NOW.astimezone(ZoneInfo("Europe/Berlin"))),
]


@pytest.mark.parametrize(
    ("annotation", "value"), FITTING, ids=[f"{value!r} for {annotation}"[:60] for annotation, value in FITTING]
)
def test_what_fits_is_taken(annotation: Any, value: Any) -> None:
    assert lenient(form(value), form(decode(encode(value, annotation, what="it"), annotation, what="it")))


REFUSED: list[tuple[Any, Any, str]] = [
    (bytes | str, "abcd", r"a str would come back as a bytes"),
    (bytes, "password", "a str would come back as a bytes"),
    (datetime | str, "2024-01-01T00:00:00Z", "a str would come back as a datetime"),
    (uuid.UUID | str, str(ID), "a str would come back as a UUID"),
    (Decimal | str, "007", "a str would come back as a Decimal"),
    (timedelta | str, "P1D", "a str would come back as a timedelta"),
    (dict[int | str, str], {1: "a"}, "the key 1 would not come back"),
    (dict[str, Any], {"a": {1: 2}}, "the key 1 at a would not come back"),
    (list[int] | set[int], {1, 2}, "a set would come back as a list"),
    (int, True, "a bool would come back as a int"),
    (int, Level.LOW, "a Level would come back as a int"),
    (str, Stage.FIRST, "a Stage would come back as a str"),
    (str, Name("a"), "a Name would come back as a str"),
    (set[str], {Stage.FIRST}, r"a Stage at \[...\] would come back as a str"),
    (deque[str], deque([Name("a")]), r"a Name at \[0\] would come back as a str"),
    (deque[int], deque([1], 5), "the maxlen of a deque would be lost"),
    (list[int], (1, 2), "a tuple would come back as a list"),
    (list[int], Numbers([1]), "a Numbers would come back as a list"),
    (Any, (1, 2), "a tuple would come back as a list.*annotate it"),
    (Any, {"a": [NOW]}, r"a datetime at a\[0\] would come back as a str.*annotate it"),
    (Any, {1: 2}, "the key 1 would not come back"),
    (object, Plain(1), "a Plain would come back as a dict"),
    (Doubled, Doubled(3), "6 at n would become 12"),
    (list[Doubled], [Doubled(3)], r"6 at \[0\].n would become 12"),
    (Lowered, Lowered.model_construct(name="A"), "'A' at name would become 'a'"),
    (Stripping, Stripping.model_construct(name=" a "), "would become"),
    (Excluded, Excluded(hidden=3), "3 at hidden would become 0"),
    (Private, private, "3 at _seen would become 0"),
    (Mixed, Mixed.PAIR, "."),
    (Plain, {"n": 1}, "a dict would come back as a Plain"),
]


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    REFUSED,
    ids=[f"{value!r} for {annotation}"[:60] for annotation, value, _ in REFUSED],
)
def test_what_would_come_back_as_another_is_refused(annotation: Any, value: Any, told: str) -> None:
    with pytest.raises(SerializationError, match=told):
        encode(value, annotation, what="it")


class Rude:
    """A class whose own code raises whatever it likes."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __eq__(self, other: object) -> bool:
        raise self.error("no")

    def __repr__(self) -> str:
        raise self.error("no")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(
            lambda value: cls(OSError),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: "rude"),
        )


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
def test_whatever_a_class_raises_is_a_refusal(error: type[BaseException]) -> None:
    @dataclass
    class Fussy:
        n: int

        def __post_init__(self) -> None:
            if self.n < 0:
                raise error("no")

    @dataclass
    class Absent:
        n: int = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "n":
                raise error("no")
            return super().__getattribute__(name)

    fussy = Fussy(1)
    fussy.n = -1
    for value, annotation in (
        (Rude(error), Rude),
        (fussy, Fussy),
        ([fussy], list[Fussy]),
        (Absent(), Absent),
        (Absent(), Any),
    ):
        with pytest.raises(SerializationError):
            encode(value, annotation, what="it")
    with pytest.raises(SerializationError, match="no"):
        decode('{"n":-1}', Fussy, what="it")


@pytest.mark.parametrize(
    "inside", [lambda union: union, lambda union: of(list, union), lambda union: of(dict, str, union)]
)
def test_unions_are_told_apart_by_their_order(inside: Any) -> None:
    """Python finds them equal; whichever a process met first must not decide for both."""
    assert inside(str | bytes) == inside(bytes | str)
    texts_first, bytes_first = inside(Union[str, bytes]), inside(Union[bytes, str])  # noqa: UP007
    value: Any = {"list": ["abcd"], "dict": {"a": "abcd"}}.get(
        getattr(typing.get_origin(texts_first), "__name__", ""), "abcd"
    )
    for first_met in (texts_first, bytes_first):
        decoding._adapters.clear()
        decoding._seen.clear()
        decoding.adapter(first_met, what="it")
        assert decode(encode(value, texts_first, what="it"), texts_first, what="it") == value
        with pytest.raises(SerializationError):
            encode(value, bytes_first, what="it")


BARE: list[Any] = [typing.List, typing.Dict, typing.Tuple, Optional[typing.Dict]]  # noqa: UP006, UP045


@pytest.mark.parametrize("annotation", [*BARE, list, dict, dict[str, Any], list[Any], of(list, dict)])
def test_containers_without_their_types(annotation: Any) -> None:
    """Plain data come back as they are; all else is refused, not an error of its own."""
    plain: Any = (
        [{"a": [1, 2.5, None, True, "x", 2**70]}] if "ist" in str(annotation) else {"a": [1, {"b": -0.0}], "c": None}
    )
    if annotation is not BARE[2]:
        text = encode(plain, annotation, what="it")
        assert decode(text, annotation, what="it") == plain
    strange: Any = [{1: 2}] if isinstance(plain, list) else {"a": {1: 2}}
    with pytest.raises(SerializationError):
        encode(strange, annotation, what="it")
