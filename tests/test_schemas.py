"""The JSON Schemas of workflows' arguments: nothing is refused that the workflow would take. About 3 seconds."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import pgflow
from pgflow.definitions.descriptors import Registry
from pgflow.definitions.schemas import misfit, schema_of, schemas_of
from pgflow.errors import SerializationError


class Colour(enum.Enum):
    RED = "red"
    BLUE = 7


class Size(enum.IntEnum):
    SMALL = 1


@dataclass
class Line:
    item: str
    count: int = 1


@dataclass
class Order:
    number: int
    lines: list[Line] = field(default_factory=list)
    note: str | None = None


class Strict(BaseModel):
    """Knows no other members."""

    model_config = ConfigDict(extra="forbid")
    number: int


class Named(BaseModel):
    number: int = Field(alias="no")


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    fast: bool


def money(text: Any) -> Any:
    return {"number": 7} if isinstance(text, str) else text


Money = Annotated[Strict, BeforeValidator(money)]

TYPES: list[Any] = [
    int, float, str, bool, bytes, None, Any, object, date, datetime, timedelta, UUID, Decimal, Colour, Size, Line,
    Order, Strict, Named, Money, Point, Options, list[int], set[str], tuple[int, str], tuple[int, ...],
    dict[str, Order], dict[int, bool], Literal["a", 7], int | None, Order | list[Order], Sequence[Line], list[Any],
    Annotated[int, Field(ge=3)],
]  # fmt: skip

WORDS = st.sampled_from(
    ["", "red", "7", "7.5", "a", "true", "no", "2030-01-01", "2030-01-01T00:00:00Z", "PT1H", "NaN", "é"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 2000), st.sampled_from([0.5, 7.0]), WORDS)
NAMES = st.sampled_from(["number", "no", "item", "lines", "count", "note", "x", "y", "fast", "7", "other"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=6
)


def workflow_of(annotation: Any) -> pgflow.Workflow[Any, Any]:
    async def it(ctx: pgflow.WorkflowContext, value: Any) -> None: ...

    it.__annotations__ = {"value": annotation}
    return pgflow.workflow(name="it")(it)


WORKFLOWS = [workflow_of(annotation) for annotation in TYPES]
SCHEMAS = [schema_of(one) for one in WORKFLOWS]


@settings(max_examples=600, deadline=None)
@given(st.integers(0, len(TYPES) - 1), VALUES)
def test_what_a_workflow_takes_fits(number: int, value: Any) -> None:
    try:
        WORKFLOWS[number].decode_arguments(json.dumps({"value": value}))
    except SerializationError:
        return
    assert misfit({"value": value}, SCHEMAS[number]) is None


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, "x", 'value: expected integer, found "x"'),
        (int, [], "value: expected integer, found []"),
        (str, 7, "value: expected string, found 7"),
        (str, None, "value: expected string, found null"),
        (Order, 7, "value: expected object, found 7"),
        (Order, {"lines": []}, 'value has no "number", which is required'),
        (
            Order,
            {"number": 7, "lines": [{"item": "a"}, {"item": {}}]},
            "value.lines[1].item: expected string, found {}",
        ),
        (Strict, {"number": 7, "more": 1}, 'value names "more", which is unknown; what is known: number'),
        (int | None, {}, "value: expected integer, found {}"),
        (Literal["a", "b"], "c", 'value: expected one of "a", "b", found "c"'),
        (list[int], {"a": 1}, 'value: expected array, found {"a": 1}'),
        (dict[str, int], {"a": "x"}, 'value.a: expected integer, found "x"'),
        (Named, {}, None),
        (Money, "7 EUR", None),
    ],
)
def test_what_does_not_fit(annotation: Any, value: Any, said: str | None) -> None:
    assert misfit({"value": value}, schema_of(workflow_of(annotation))) == said


def test_arguments_by_name() -> None:
    @pgflow.workflow
    async def it(ctx: pgflow.WorkflowContext, /, a: int, b: str = "x", *more: int, c: bool, **rest: Any) -> None: ...

    @pgflow.workflow
    async def plain(ctx: pgflow.WorkflowContext, order: Order) -> None: ...

    assert misfit({"a": 1}, schema_of(it)) == 'it has no "c", which is required'
    assert misfit({"a": 1, "c": True, "more": [1, 2], "z": {}}, schema_of(it)) is None
    assert (
        misfit({"order": {"number": 1}, "z": 1}, schema_of(plain))
        == 'it names "z", which is unknown; what is known: order'
    )
    assert json.loads(schemas_of(Registry([it, plain])))["plain"]["$defs"].keys() >= {"Line"}


def test_what_cannot_be_said_is_left_out() -> None:
    """Classes that pydantic does not know, annotations that name nothing, and schemas that cannot be stored."""

    class Foreign: ...

    class Long(BaseModel):
        number: int = Field(description="x" * 200_000)

    async def unresolved(ctx: pgflow.WorkflowContext, value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for one in (workflow_of(Foreign), workflow_of(Long), pgflow.workflow(unresolved)):
        schema = schema_of(one)
        assert schema["properties"] == {"value": {}} and schema["required"] == ["value"]
        assert misfit({"value": 7}, schema) is None and misfit({}, schema) is not None
