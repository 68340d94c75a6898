"""Values and annotations of every sort, and a check whether two values are the same that is independent of the code's
own.
"""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Optional, Union
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, computed_field, field_validator
from typing_extensions import TypedDict


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


def of(origin: Any, *arguments: Any) -> Any:
    """An annotation that is made at run time."""
    return origin[arguments if len(arguments) > 1 else arguments[0]]


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
kinds = st.recursive(
    st.sampled_from([*KINDS, Holder]),
    lambda inner: st.one_of(
        inner.map(lambda a: of(list, a)),
        inner.map(lambda a: of(set, a)),
        inner.map(lambda a: of(frozenset, a)),
        inner.map(lambda a: of(deque, a)),
        inner.map(lambda a: of(Sequence, a)),
        inner.map(lambda a: of(tuple, a, ...)),
        st.tuples(inner, inner).map(lambda pair: of(tuple, *pair)),
        st.tuples(inner, inner).map(lambda pair: of(dict, *pair)),
        st.tuples(inner, inner).map(lambda pair: of(Mapping, *pair)),
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
