"""Values to JSON text and back: what goes in comes out, and what could not is refused with its place."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import json
import math
import pathlib
import typing
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import psycopg
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator
from typing_extensions import TypedDict

from pgflow import codec
from pgflow.codec import decode, decoding, encode, same
from pgflow.codec.encode import _dumps, _plain
from pgflow.errors import SerializationError

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    GREEN = 2


class Word(enum.StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    when: datetime


class Row(TypedDict):
    id: uuid.UUID
    price: Decimal


@dataclass
class Inner:
    data: bytes
    tags: set[str]


@dataclass
class Outer:
    id: int
    inner: Inner
    more: list[Inner] = field(default_factory=list)
    maybe: Inner | None = None


@dataclass
class Animal:
    name: str


@dataclass
class Dog(Animal):
    tricks: int = 0


@dataclass
class Cat:
    name: str


@dataclass(frozen=True, slots=True)
class Frozen:
    at: datetime


@pydantic.dataclasses.dataclass
class Strict:
    number: int = Field(alias="Number", default=3)


class Plain(BaseModel):
    a: int
    b: Animal | None = None


class Aliased(BaseModel):
    inner_id: int = Field(alias="innerId")
    shown: str = Field(serialization_alias="Shown", default="")
    read: str = Field(validation_alias="READ", default="")
    nested: Plain = Field(alias="N", default=Plain(a=0))


class Customised(BaseModel):
    day: date

    @field_serializer("day")
    def _write(self, day: date) -> str:
        return day.strftime("%d/%m/%Y")

    @field_validator("day", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return datetime.strptime(value, "%d/%m/%Y").date() if isinstance(value, str) else value


class Binary(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    raw: bytes


class Utf8(BaseModel):
    raw: bytes


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Box(BaseModel, Generic[T]):
    content: T


NOW = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
ID = uuid.UUID("01890000-0000-7000-8000-000000000001")

ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, None),
    (True, bool),
    (0, int),
    (-(2**80), int),
    (1.5, float),
    (3, float),
    ('ünïcødé 🐘 \\u0000 " \n \u2028', str),
    (b"\x00\xff\xfe", bytes),
    (b"", bytes),
    (NOW, datetime),
    (datetime(2026, 3, 29, 1, 30, tzinfo=timezone(timedelta(hours=-3, minutes=-30))), datetime),
    (datetime(2026, 10, 25, 4, 30, tzinfo=ZoneInfo("Europe/Berlin")), datetime),
    (date(1, 1, 1), date),
    (time(23, 59, 59, 999999), time),
    (timedelta(days=-400, microseconds=1), timedelta),
    (ID, uuid.UUID),
    (Decimal("1.10"), Decimal),
    (Decimal("-1E+400"), Decimal),
    (Colour.GREEN, Colour),
    (Word.YES, Word),
    ("red", Literal["red", "green"]),
    (pathlib.PurePosixPath("/a/b"), pathlib.PurePosixPath),
    (ipaddress.ip_address("::1"), ipaddress.IPv6Address),
    ([1, [2, []]], list[Any]),
    ((1, "a", NOW), tuple[int, str, datetime]),
    ((1, 2, 3), tuple[int, ...]),
    ({3, 1, 2}, set[int]),
    (frozenset({b"a", b"\xff"}), frozenset[bytes]),
    (deque([1, 2]), deque[int]),
    (OrderedDict(b=1, a=2), OrderedDict[str, int]),
    ({1: "a", 20: "b"}, dict[int, str]),
    ({ID: NOW}, dict[uuid.UUID, datetime]),
    ({Colour.RED: 1}, dict[Colour, int]),
    ({NOW: 1}, dict[datetime, int]),
    ({True: 1}, dict[bool, int]),
    (Point(1, NOW), Point),
    ({"id": ID, "price": Decimal("9.99")}, Row),
    (Inner(b"\xff\x00", {"a"}), Inner),
    (Outer(1, Inner(b"\xff", set()), [Inner(b"a", {"b"})], None), Outer),
    ([Outer(1, Inner(b"\xff", set()))], list[Outer]),
    ({"a": Inner(b"\xfe", set())}, dict[str, Inner]),
    (Inner(b"\xff", set()), Inner | None),
    (None, Inner | None),
    (Dog("rex", 3), Dog | Cat),
    (Frozen(NOW), Frozen),
    (Strict(Number=4), Strict),
    ([Plain(a=1, b=Animal("x"))], list[Plain]),
    (Aliased(innerId=1, shown="s", READ="r", N=Plain(a=4)), Aliased),  # type: ignore[call-arg]
    ({"x": Aliased(innerId=1)}, dict[str, Aliased]),
    (Customised(day=date(2026, 2, 3)), Customised),
    (Binary(raw=b"\xff\x00"), Binary),
    (Utf8(raw=b"text"), Utf8),
    (Open(a=1, b=[2]), Open),  # type: ignore[call-arg]
    (Box[datetime](content=NOW), Box[datetime]),
    (Box(content=1), Box[int]),
    (5, Annotated[int, Field(gt=3)]),
]


@pytest.mark.parametrize(
    ("value", "annotation"), ROUND_TRIPS, ids=[f"{n} {type}"[:40] for n, (_, type) in enumerate(ROUND_TRIPS)]
)
def test_round_trips_by_annotation(value: Any, annotation: Any) -> None:
    text = encode(value, annotation, what="it")
    back = decode(text, annotation, what="it")
    assert back == value
    assert annotation is float or isinstance(back, type(value)) or isinstance(value, Box)
    again = encode(back, annotation, what="it")
    assert decode(again, annotation, what="it") == back
    assert json.loads(text) == json.loads(text.encode())


def test_values_whose_type_somebody_else_knows_are_plain_data() -> None:
    value = {"order": Outer(1, Inner(b"a", {"y", "x"})), "at": NOW, "p": Point(1, NOW), "m": Plain(a=1)}
    with pytest.raises(SerializationError, match="a Outer at order would come back as a dict.*annotate it"):
        encode(value, what="it")
    assert decode(encode(value, what="it", same=False), what="it") == {
        "order": {"id": 1, "inner": {"data": "YQ==", "tags": ["x", "y"]}, "more": [], "maybe": None},
        "at": NOW.isoformat(),
        "p": [1, NOW.isoformat()],
        "m": {"a": 1, "b": None},
    }


class Opaque:
    pass


class Broken(BaseModel):
    a: int

    @field_serializer("a")
    def _write(self, a: int) -> int:
        raise LookupError("broken serializer")


class Timed(BaseModel):
    at: datetime


class Secretive(BaseModel):
    key: pydantic.SecretStr


circle: list[Any] = []
circle.append(circle)
circular_dict: dict[str, Any] = {}
circular_dict["self"] = [circular_dict]
NAIVE = datetime(2026, 1, 1)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "nan"),
        ({"a": [1.0, {"b": math.inf}]}, "at a[1].b inf"),
        ([(-math.inf,)], "-inf"),
        (Plain.model_construct(a=math.nan), "nan"),
        (Decimal("NaN"), "NaN"),
        ([Decimal("Infinity")], "Infinity"),
        ("a\0b", "NUL"),
        ({"k": ["\0"]}, "at k[0] a NUL"),
        ({"a\0": 1}, "NUL"),
        (Animal("\0"), "at name a NUL"),
        (Plain(a=1, b=Animal("\0")), "NUL"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        (["é", {"x": "\ud800"}], "at [1].x a lone surrogate"),
        (NAIVE, "without a time zone"),
        ([Frozen(NAIVE)], "at [0].at a datetime without a time zone"),
        (Timed(at=NAIVE), "without a time zone"),
        ({"x": [Timed(at=NAIVE)]}, "without a time zone"),
        ({NAIVE: 1}, "without a time zone"),
        ({Point(1, NAIVE)}, "without a time zone"),
        (deque([NAIVE]), "at [0] a datetime without a time zone"),
        (circle, "contain itself"),
        (circular_dict, "contain itself"),
        (Opaque(), "no JSON form"),
        ([{"x": Opaque()}], "at [0].x a Opaque"),
        (Opaque, "no JSON form"),
        (Animal, "no JSON form"),
        (lambda: 1, "no JSON form"),
        (object(), "no JSON form"),
        ((n for n in [1]), "generator"),
        (Broken(a=1), "broken serializer"),
        (Utf8(raw=b"\xff"), "ser_json_bytes"),
        (pydantic.SecretStr("x"), "secret"),
        (Secretive(key=pydantic.SecretStr("x")), "secret"),
        ({None: 1}, "the key None"),
        ({1.5: 1}, "the key 1.5"),
        ({(1, 2): 1}, "no text"),
        ({1: "a", "1": "b"}, "two keys"),
        (10**5000, "4,000 digits"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_cannot_be_held_is_refused_with_its_place(value: Any, told: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(value, what='result of activity "charge"')
    assert 'result of activity "charge"' in str(caught.value)
    assert told in str(caught.value)


@dataclass
class Computed:
    a: int
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = self.a * 2


@dataclass
class Fussy:
    a: int

    def __post_init__(self) -> None:
        if self.a < 0:
            raise LookupError("less than nothing")


def test_fields_that_are_no_arguments_must_come_back_as_they_were() -> None:
    assert decode(encode(Computed(2), Computed, what="it"), Computed, what="it") == Computed(2)
    changed = Computed(2)
    changed.total = 5
    with pytest.raises(SerializationError, match="total.*init=False"):
        encode(changed, Computed, what="it")


@pytest.mark.parametrize(
    ("value", "annotation", "told"),
    [
        ("five", int, "valid integer"),
        (5, str, "valid string"),
        (5, None, "None"),
        (None, int, "valid integer"),
        (1.5, int, "fractional"),
        (2**60 + 1, float, "would become"),
        (Dog("rex", 3), Animal, "Dog would come back as a Animal"),
        ([Dog("rex", 3)], list[Animal], r"at \[0\] would come back"),
        (Plain(a=1, b=Dog("rex")), Plain, "come back as a Animal"),
        (Cat("tom"), Animal | Cat, "Cat would come back as a Animal"),
        ({"id": ID, "price": Decimal(1), "extra": 1}, Row, '"extra" would be dropped'),
        ({"name": 1}, Animal, "valid string"),
        ({"x": 1}, Animal, "required"),
        (1, list[int], r"list\[int\].* valid array"),
        (1, "no_such_type", "not fully defined"),
        (1, Opaque, "cannot be converted"),
    ],
)
def test_what_would_not_come_back_is_refused(value: Any, annotation: Any, told: str) -> None:
    with pytest.raises(SerializationError, match=told):
        encode(value, annotation, what="it")


@pytest.mark.parametrize(
    ("text", "annotation"),
    [('"x"', int), ("{}", Animal), ("[1]", tuple[int, int]), ('{"a":-1}', Fussy), ("1", Opaque)],
)
def test_stored_text_that_does_not_fit_is_told(text: str, annotation: Any) -> None:
    with pytest.raises(SerializationError, match="argument"):
        decode(text, annotation, what="argument")


def test_aliases_are_read_too() -> None:
    assert decode('{"innerId":1,"READ":"r"}', Aliased, what="it") == Aliased(innerId=1, READ="r")  # type: ignore[call-arg]


def test_the_limit_counts_bytes() -> None:
    assert encode("é" * 49, what="it", limit=100)
    with pytest.raises(SerializationError, match="102 bytes of JSON; expected at most 100"):
        encode("é" * 50, what="it", limit=100)
    with pytest.raises(SerializationError, match="payload_limit"):
        encode(["x" * codec.PAYLOAD_LIMIT], what="it")


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.none(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@given(values)
def test_plain_data_comes_back_unchanged(value: Any) -> None:
    text = encode(value, what="it")
    assert decode(text, what="it") == value
    assert encode(decode(text, what="it"), what="it") == text
    assert " " not in text or '"' in text


def _by_the_slow_way(value: Any) -> str | None:
    try:
        written = _dumps(_plain(value, "it", "", 0))
        return written if same.difference(value, json.loads(written)) is None else None
    except SerializationError:
        return None


@given(anything)
def test_the_fast_way_gives_what_the_slow_way_gives(value: Any) -> None:
    try:
        found: str | None = encode(value, what="it")
    except SerializationError:
        found = None
    assert found == _by_the_slow_way(value)


@settings(max_examples=25)
@given(st.lists(values, max_size=20), st.lists(st.datetimes(timezones=st.timezones()), max_size=5))
def test_times_come_back_as_the_same_moment(many: list[Any], moments: list[datetime]) -> None:
    for moment in moments:
        offset = moment.utcoffset()
        assert offset is not None
        if offset.total_seconds() % 60 == 0:
            back = decode(encode(moment, datetime, what="it"), datetime, what="it")
            # in UTC, since Python finds a repeated hour unequal to any other zone's time
            assert back.astimezone(UTC) == moment.astimezone(UTC)


def test_postgresql_takes_every_text(server_dsn: str) -> None:
    taken: list[str] = []

    @settings(max_examples=150, deadline=None)
    @given(values)
    def collect(value: Any) -> None:
        taken.append(encode(value, what="it"))

    collect()
    with psycopg.connect(server_dsn) as connection:
        rows = connection.execute("SELECT t::json::text, t::jsonb IS NOT NULL FROM unnest(%s::text[]) AS t", [taken])
        assert [row[0] for row in rows] == taken


def test_forgetting_converters_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_ADAPTERS", 1)
    make: Callable[[str], Any] = lambda name: dataclasses.make_dataclass(name, [("a", int)])  # noqa: E731
    for number in range(5):
        made = make(f"Made{number}")
        assert decode(encode(made(1), made, what="it"), made, what="it") == made(1)
    assert len(decoding._adapters) <= 1
    assert typing.get_type_hints(Inner)["data"] is bytes
