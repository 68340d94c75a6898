"""What comes back is equal and of the same type, or is refused: generated annotations, with values that fit them,
nearly, or not at all.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
import typing
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Optional, Union
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, computed_field, field_validator
from pydantic_core import core_schema
from typing_extensions import TypedDict

import pgflow
from pgflow.codec import convert, decode, encode
from pgflow.codec.exact import is_exact
from pgflow.errors import SerializationError
from pgflow.testing import run


class Mixed(enum.Enum):
    """Values of two types that JSON may write alike."""

    ONE = 1
    TEXT = "1"
    PAIR = (1, 2)
    RAW = b"1"


class Level(enum.IntEnum):
    """Numbers that are more than that."""

    LOW = 1


class Stage(enum.StrEnum):
    """Texts that are more than that."""

    FIRST = "first"


class Name(str):
    """A text of an application's own."""


class Numbers(list[int]):
    """A list of an application's own."""


class Tags(set[str]):
    """A set of an application's own."""


class Pair(NamedTuple):
    left: int
    right: str | None = None


class Row(TypedDict, total=False):
    id: int
    at: datetime


@dataclass
class Plain:
    n: int
    name: str = ""


@dataclass
class Special(Plain):
    more: int = 0


@dataclass
class Doubled:
    """Made from what was made by it, it is another."""

    n: int

    def __post_init__(self) -> None:
        self.n *= 2


@dataclass
class Held:
    """Made of its fields alone."""

    many: list[float] = field(default_factory=list)
    one: Plain | None = None


@dataclass
class Written:
    """Has an `__init__` of its own."""

    n: int

    def __init__(self, n: int) -> None:
        self.n = n * 2


@dataclass
class Watched:
    """Takes part in what is set."""

    n: int

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value * 2)


class Counting(type):
    """Takes part in what is made."""

    def __call__(cls, n: int) -> Any:
        return super().__call__(n + 1)


@dataclass
class Odd(metaclass=Counting):
    n: int


@dataclass
class Renamed:
    n: int = Field(alias="N", default=0, multiple_of=1)


@dataclass
class Described:
    __pydantic_config__ = ConfigDict(coerce_numbers_to_str=True)
    n: int = 0


@dataclass
class Holder:
    what: Any = None
    many: list[Any] = field(default_factory=list)


class Model(BaseModel):
    n: int
    name: str = ""


class Stripping(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    name: str


class Excluded(BaseModel):
    n: int = 0
    hidden: int = Field(default=0, exclude=True)


class Private(BaseModel):
    n: int = 0
    _seen: int = PrivateAttr(default=0)


class Summed(BaseModel):
    n: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.n * 2


class Lowered(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
ID = uuid.UUID(int=5)

LEAVES: list[Any] = [
    None, True, False, 0, 1, -1, 7, 2**60 + 1, 2**70, 0.0, -0.0, 1.0, 1.5, 1e300, "", "1", "007", "true", "null",
    "abcd", "password", "YWJjZA==",
    "P1D", "2024-01-01", "2024-01-01T00:00:00Z", str(ID), "é", b"", b"abc", b"\xff", bytearray(b"abc"), NOW,
    NOW.date(), NOW.time(), timedelta(days=1),
    NOW.astimezone(ZoneInfo("Europe/Berlin")), NOW.astimezone(timezone(timedelta(hours=2))), ID, Decimal("007"),
    Decimal("1.10"), Decimal("1"),
    Mixed.ONE, Mixed.TEXT, Mixed.PAIR, Mixed.RAW, Level.LOW, Stage.FIRST, Name("abcd"), 1 + 0j,
    Plain(1), Special(1, "a", 2), Doubled(3), Model(n=1), Stripping(name="a"), Stripping.model_construct(name=" a "),
    Excluded(), Excluded(hidden=3), Private(),
    Summed(n=2), Lowered(name="A"), Lowered.model_construct(name="A"), Pair(1, "a"), Row(id=1), Row(at=NOW),
]  # fmt: skip
private = Private()
private._seen = 3
LEAVES.append(private)

KINDS: list[Any] = [
    Any, object, type(None), bool, int, float, str, bytes, bytearray, datetime, date, time, timedelta, uuid.UUID,
    Decimal, Mixed, Level, Stage,
    Literal["1", 1], Literal["first"], Plain, Special, Doubled, Model, Stripping, Excluded, Private, Summed, Lowered,
    Pair, Row, complex,
]  # fmt: skip

hashable = st.sampled_from([leaf for leaf in LEAVES if leaf.__hash__ is not None])
values = st.recursive(
    st.sampled_from(LEAVES)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
    | st.integers(-9, 9),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.lists(inner, max_size=2).map(lambda items: deque(items, 3)),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.dictionaries(hashable, inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "1"]), inner, max_size=3).map(OrderedDict),
        st.lists(st.integers(-9, 9), max_size=3).map(Numbers),
        st.sets(st.sampled_from(["a", "b"])).map(Tags),
        st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 5)).map(Counter),
        inner.map(lambda item: Holder(item, [item])),
    ),
    max_leaves=5,
)
annotations = st.recursive(
    st.sampled_from([*KINDS, Holder]),
    lambda inner: st.one_of(
        inner.map(lambda a: list[a]),
        inner.map(lambda a: set[a]),
        inner.map(lambda a: frozenset[a]),
        inner.map(lambda a: deque[a]),
        inner.map(lambda a: Sequence[a]),
        inner.map(lambda a: tuple[a, ...]),
        st.tuples(inner, inner).map(lambda pair: tuple[pair[0], pair[1]]),
        st.tuples(inner, inner).map(lambda pair: dict[pair[0], pair[1]]),
        st.tuples(inner, inner).map(lambda pair: Mapping[pair[0], pair[1]]),
        st.tuples(inner, inner).map(lambda pair: Union[pair[0], pair[1]]),  # noqa: UP007 — made at run time
        st.tuples(inner, inner, inner).map(lambda three: Union[three[0], three[1], three[2]]),  # noqa: UP007
        inner.map(lambda a: Optional[a]),  # noqa: UP045
    ),
    max_leaves=4,
)


def form(value: Any) -> Any:
    """A value with all its types, in a form that is the same only for the same value: another way to look than the
    code's own.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str, bytes, bytearray, complex) or isinstance(value, enum.Enum):
        return kind.__qualname__, repr(value)
    if kind is float:
        return "float", value.hex()
    if isinstance(value, datetime):
        return kind.__qualname__, value.replace(tzinfo=None).isoformat(), str(value.utcoffset())
    if isinstance(value, BaseModel):
        parts = [value.__dict__, value.__pydantic_extra__, value.__pydantic_private__]
        return kind.__qualname__, [form(part) for part in parts]
    if dataclasses.is_dataclass(value):
        return kind.__qualname__, [form(getattr(value, each.name)) for each in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        pairs = [(form(key), form(item)) for key, item in value.items()]
        return kind.__qualname__, pairs if kind is OrderedDict else sorted(pairs, key=repr)
    if isinstance(value, set | frozenset):
        return kind.__qualname__, sorted((form(item) for item in value), key=repr)
    if isinstance(value, list | tuple | deque):
        return kind.__qualname__, getattr(value, "maxlen", None), [form(item) for item in value]
    return kind.__qualname__, repr(value)


def lenient(mine: Any, back: Any) -> bool:
    """Whether two forms are the same but for ints that came back as floats, which type checkers allow."""
    if mine == back:
        return True
    if isinstance(mine, tuple) and isinstance(back, tuple) and mine[:1] == ("int",) and back[:1] == ("float",):
        return float.fromhex(back[1]) == int(mine[1])
    if type(mine) is type(back) and isinstance(mine, list | tuple) and len(mine) == len(back):
        return all(lenient(one, other) for one, other in zip(mine, back, strict=True))
    return False


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(annotations, values)
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
        inner.map(lambda a: list[a]),
        inner.map(lambda a: tuple[a, ...]),
        st.tuples(inner, inner).map(lambda pair: tuple[pair[0], pair[1]]),
        inner.map(lambda a: dict[str, a]),
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
    for value, annotation in (
        (held, Held),
        ([held], list[Held]),
        ({"a": None}, dict[str, int | None]),
        ((1, "a"), tuple[int, str]),
        (Special(1), Special),
    ):
        assert is_exact(value, annotation)
    for value, annotation in (
        (Special(1), Plain),
        (True, int),
        (1, float),
        ((1,), list[int]),
        ({1: 1}, dict[int, int]),
        (b"a", bytes),
        (NOW, datetime),
    ):
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


@pgflow.signal
@dataclass
class Told:
    what: bytes | str


@pytest.mark.parametrize(
    "way",
    ["argument", "result", "output", "state", "break", "inline", "kept", "heartbeat", "signal", "message", "by name"],
)
def test_every_way_into_history_is_watched(way: str) -> None:
    """One value, by all ways: it never arrives as another."""

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def take(ctx: pgflow.ActivityContext, value: bytes | str) -> None: ...

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def give(ctx: pgflow.ActivityContext) -> bytes | str:
        return "abcd"

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def keep(ctx: pgflow.ActivityContext) -> None:
        ctx.state["pair"] = (1, 2)

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def tell(ctx: pgflow.ActivityContext) -> None:
        ctx.heartbeat((1, 2))

    @pgflow.workflow
    async def below(ctx: pgflow.WorkflowContext, value: bytes | str) -> None: ...

    async def turn(
        ctx: pgflow.WorkflowContext, state: bytes | str
    ) -> pgflow.Continue[bytes | str] | pgflow.Break[None]:
        return pgflow.Continue("abcd")

    async def leave(ctx: pgflow.WorkflowContext, state: None) -> pgflow.Continue[None] | pgflow.Break[bytes | str]:
        return pgflow.Break("abcd")

    @pgflow.message
    @dataclass
    class Published:
        what: bytes | str

    @pgflow.workflow
    async def all_ways(ctx: pgflow.WorkflowContext) -> bytes | str:
        steps: dict[str, Any] = {
            "argument": lambda: ctx.activity(take, "abcd"),
            "by name": lambda: ctx.activity(take, value="abcd"),
            "result": lambda: ctx.activity(give),
            "state": lambda: ctx.loop(turn, b"\xff"),
            "break": lambda: ctx.loop(leave, None),
            "inline": lambda: ctx.inline(below, "abcd"),
            "kept": lambda: ctx.activity(keep),
            "heartbeat": lambda: ctx.activity(tell),
            "signal": lambda: ctx.signal(Told("abcd"), to=ID),
            "message": lambda: ctx.publish(Published("abcd")),
        }
        if way != "output":
            await steps[way]()
        return "abcd"

    error = run(all_ways).error
    assert isinstance(error, SerializationError) or (
        isinstance(error, pgflow.ActivityFailed) and error.error_type == "SerializationError"
    ), error


@pytest.mark.parametrize("text", ["x" * 98, "é" * 49, "€" * 32 + "xx", "🐘" * 24 + "xx", "🐘" * 24 + "é"])
def test_the_limit_is_exact(text: str) -> None:
    size = len(json.dumps(text, ensure_ascii=False).encode())
    assert size == 100
    assert encode(text, str, what="it", limit=100)
    for shape in (text + "x", text + "🐘"):
        with pytest.raises(SerializationError, match="expected at most 100"):
            encode(shape, str, what="it", limit=100)


def test_the_limit_of_all_arguments_together_is_exact() -> None:
    @pgflow.workflow
    async def below(ctx: pgflow.WorkflowContext, a: str, b: str) -> None: ...

    size = len(below.encode_arguments(("🐘" * 10, "🐘" * 10), {}).encode())
    assert below.encode_arguments(("🐘" * 10, "🐘" * 10), {}, size)
    with pytest.raises(SerializationError, match=f"is {size:,} bytes of JSON; expected at most {size - 1:,}"):
        below.encode_arguments(("🐘" * 10, "🐘" * 10), {}, size - 1)


def test_an_inline_workflow_has_the_limit_too() -> None:
    @pgflow.workflow
    async def below(ctx: pgflow.WorkflowContext, text: str) -> None: ...

    @pgflow.workflow
    async def above(ctx: pgflow.WorkflowContext) -> None:
        await ctx.inline(below, "x" * (1 << 20))

    error = run(above).error
    assert isinstance(error, SerializationError) and "expected at most 1,048,576" in str(error)


def test_yesterdays_values_are_read_as_before() -> None:
    """What is refused today may stand in a history of yesterday."""
    assert decode('"abcd"', bytes | str, what="it") == b"i\xb7\x1d"
    assert decode('{"1":"a"}', dict[int | str, str], what="it") == {"1": "a"}
    assert decode("[1,2]", list[int] | set[int], what="it") == [1, 2]
    assert decode('{"n":3}', Doubled, what="it") == Doubled(3)
    assert decode("true", int, what="it") == 1
    assert math.isclose(decode("3", float, what="it"), 3.0)


@pytest.mark.parametrize("inside", [lambda union: union, lambda union: list[union], lambda union: dict[str, union]])
def test_unions_are_told_apart_by_their_order(inside: Any) -> None:
    """Python finds them equal; whichever a process met first must not decide for both."""
    assert inside(str | bytes) == inside(bytes | str)
    texts_first, bytes_first = inside(Union[str, bytes]), inside(Union[bytes, str])  # noqa: UP007
    value: Any = {"list": ["abcd"], "dict": {"a": "abcd"}}.get(
        getattr(typing.get_origin(texts_first), "__name__", ""), "abcd"
    )
    for first_met in (texts_first, bytes_first):
        convert._adapters.clear()
        convert._seen.clear()
        convert.adapter(first_met, what="it")
        assert decode(encode(value, texts_first, what="it"), texts_first, what="it") == value
        with pytest.raises(SerializationError):
            encode(value, bytes_first, what="it")


BARE: list[Any] = [typing.List, typing.Dict, typing.Tuple, Optional[typing.Dict]]  # noqa: UP006, UP045


@pytest.mark.parametrize("annotation", [*BARE, list, dict, dict[str, Any], list[Any], list[dict]])
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
