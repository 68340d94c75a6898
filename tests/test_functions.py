"""Decorated functions are what they do: names, signatures, annotations and arguments as Python has them. About 1
second.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

import pgflow
from pgflow.definitions.functions import is_async
from pgflow.definitions.signature import parameters_of
from pgflow.testing import run

if TYPE_CHECKING:
    from pgflow import ActivityContext as Imported
    from tests.test_functions import Item as Unknown

TOOLS: Any = types.ModuleType("tools")  # stands for a file of its own
exec(
    "import functools\n"
    "class Item: 'of the same name, but another'\n"
    "def logged(fn):\n"
    "    @functools.wraps(fn)\n"
    "    async def wrapper(*args, **kwargs):\n"
    "        return await fn(*args, **kwargs)\n"
    "    return wrapper\n"
    "def timed(fn):\n"
    "    @functools.wraps(fn)\n"
    "    def wrapper(*args, **kwargs):\n"
    "        return fn(*args, **kwargs)\n"
    "    return wrapper\n"
    "def signed(fn):\n"
    "    import inspect\n"
    "    wrapper = timed(fn)\n"
    "    wrapper.__signature__ = inspect.signature(fn)\n"
    "    del wrapper.__wrapped__\n"
    "    return wrapper\n",
    TOOLS.__dict__,
)
BENEATH = [
    TOOLS.logged,
    TOOLS.timed,
    lambda fn: TOOLS.timed(TOOLS.logged(fn)),
    lambda fn: TOOLS.logged(TOOLS.timed(fn)),
]


@dataclass
class Item:
    n: int


def calling(activity: Any, *args: Any, **kwargs: Any) -> Any:
    """The output of a workflow that calls the activity."""

    @pgflow.workflow
    async def call(ctx: pgflow.WorkflowContext) -> Any:
        return await ctx.activity(activity, *args, **kwargs)

    return run(call).output


# What they tell of themselves


@pgflow.activity
async def told(ctx: pgflow.ActivityContext, item: Item, *, fast: bool = False) -> Item:
    """Tells."""
    return item


@pgflow.workflow(name="another")
async def telling(ctx: pgflow.WorkflowContext, item: Item) -> Item:
    """Tells as well."""
    return item


@pytest.mark.parametrize(
    ("decorated", "name", "doc", "shown"),
    [
        (told, "told", "Tells.", "(ctx: 'pgflow.ActivityContext', item: 'Item', *, fast: 'bool' = False) -> 'Item'"),
        (telling, "telling", "Tells as well.", "(ctx: 'pgflow.WorkflowContext', item: 'Item') -> 'Item'"),
        (
            told.options(name="x"),
            "told",
            "Tells.",
            "(ctx: 'pgflow.ActivityContext', item: 'Item', *, fast: 'bool' = False) -> 'Item'",
        ),
    ],
)
def test_they_tell_what_their_functions_tell(decorated: Any, name: str, doc: str, shown: str) -> None:
    assert (decorated.__name__, decorated.__qualname__, decorated.__doc__, decorated.__module__) == (
        name,
        name,
        doc,
        __name__,
    )
    assert inspect.unwrap(decorated) is decorated.__wrapped__ is decorated.fn
    assert str(inspect.signature(decorated)) == shown
    assert typing.get_type_hints(decorated)["item"] is Item
    assert inspect.getsource(decorated).startswith("@pgflow.")

    @functools.wraps(decorated)
    def above() -> None: ...

    assert above.__name__ == name and above.__doc__ == doc


def test_what_was_set_on_the_function_stays() -> None:
    async def owned(ctx: pgflow.ActivityContext) -> None: ...

    owned.team = "billing"  # type: ignore[attr-defined]
    assert pgflow.activity(owned).team == "billing"  # type: ignore[attr-defined]


# Annotations


@pytest.mark.parametrize("beneath", BENEATH)
def test_annotations_behind_decorators_of_another_module(beneath: Callable[[Any], Any]) -> None:
    @pgflow.activity
    @beneath
    async def next_one(ctx: Imported, item: Item, *more: Item) -> list[Item]:
        return [Item(one.n + 1) for one in (item, *more)]

    @pgflow.workflow
    async def call(ctx: pgflow.WorkflowContext) -> list[Item]:
        return await ctx.activity(next_one, Item(1), Item(2))

    assert run(call).output == [Item(2), Item(3)]
    arguments = next_one.decode_arguments('{"item":{"n":1},"more":[{"n":2}]}')
    assert arguments == ((Item(1), Item(2)), {})
    assert next_one.decode_result('[{"n":3}]') == [Item(3)]


def test_a_signature_of_its_own_that_forgets_what_it_wraps() -> None:
    @pgflow.activity
    @TOOLS.signed  # type: ignore[untyped-decorator]  # it takes anything
    async def next_one(ctx: pgflow.ActivityContext, day: date) -> date:
        return day

    assert next_one.decode_arguments('{"day":"2030-01-02"}') == ((date(2030, 1, 2),), {})


def test_classes_that_are_local() -> None:
    """Also those which the function's code does not name, and behind decorators."""

    @dataclass
    class Local:
        n: int

    @pgflow.activity
    @TOOLS.logged  # type: ignore[untyped-decorator]  # it takes anything
    async def keep(ctx: pgflow.ActivityContext, one: Local, more: list[Local]) -> Local:
        return more[0] if more else one

    @pgflow.activity
    async def make(ctx: pgflow.ActivityContext, one: Local | None = None) -> Local:
        return Local(7)

    assert keep.decode_arguments('{"one":{"n":1},"more":[{"n":2}]}') == ((Local(1), [Local(2)]), {})
    assert make.decode_result('{"n":7}') == Local(7)

    class Group:
        @dataclass
        class Part:
            n: int

        @staticmethod
        @pgflow.activity
        async def use(ctx: pgflow.ActivityContext, part: Part) -> None: ...

    assert Group.use.decode_arguments('{"part":{"n":1}}') == ((Group.Part(1),), {})


def test_what_cannot_be_resolved_is_named() -> None:
    @pgflow.activity
    @TOOLS.logged  # type: ignore[untyped-decorator]  # it takes anything
    async def lost(ctx: pgflow.ActivityContext, item: Unknown) -> None: ...

    with pytest.raises(pgflow.SerializationError, match=r"lost cannot be resolved: name 'Unknown'.*TYPE_CHECKING"):
        calling(lost, Item(1))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no such syntax before Python 3.12")
@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_type_parameters_and_aliases(future: str) -> None:
    module = types.ModuleType("generic")
    sys.modules["generic"] = module
    try:
        exec(
            f"{future}import pgflow\n"
            "from datetime import date\n"
            "type Days = list[date]\n"
            "@pgflow.activity\n"
            "async def first[T: date](ctx: pgflow.ActivityContext, days: Days, other: T) -> T:\n"
            "    return days[0]\n",
            module.__dict__,
        )
        assert module.first.decode_arguments('{"days":["2030-01-02"],"other":"2030-01-03"}')[0] == (
            [date(2030, 1, 2)],
            date(2030, 1, 3),
        )
    finally:
        del sys.modules["generic"]


# Arguments


def several(ctx: Any, *names: str) -> str:
    return " ".join(names)


def dated(ctx: Any, *days: date, **more: date) -> list[str]:
    return [str(type(day).__name__) for day in (*days, *more.values())]


def clashing(ctx: Any, x: int = 0, /, *rest: int, y: int = 1, **more: int) -> str:
    return f"{x} {rest} {y} {more}"


def positional(ctx: Any, a: int, b: int = 2, /, c: int = 3) -> str:
    return f"{a} {b} {c}"


def filled(ctx: Any, a: int = 1, *rest: int) -> str:
    return f"{a} {rest}"


def named_like_ours(ctx: Any, self: int, fn: str, args: int = 0, owner: str = "", limit: int = 0) -> str:
    return f"{self} {fn} {args} {owner} {limit}"


def free(context: Any, /, **more: Any) -> str:
    return f"{more}"


CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (several, (), {}, "{}"),
    (several, ("Ann", "Bob"), {}, '{"names":["Ann","Bob"]}'),
    (dated, (date(2030, 1, 2),), {"start": date(2030, 1, 3)}, '{"days":["2030-01-02"],"start":"2030-01-03"}'),
    (dated, (), {"days": date(2030, 1, 2)}, '{"**more":{"days":"2030-01-02"}}'),
    (clashing, (1,), {"x": 2}, '{"x":1,"**more":{"x":2}}'),
    (clashing, (), {"x": 2}, '{"**more":{"x":2}}'),
    (clashing, (1, 2, 3), {"rest": 4, "z": 5, "more": 6}, '{"x":1,"rest":[2,3],"**more":{"rest":4,"z":5,"more":6}}'),
    (clashing, (1,), {"**more": 7}, '{"x":1,"**more":{"**more":7}}'),
    (positional, (1,), {"c": 4}, '{"a":1,"c":4}'),
    (positional, (1, 5, 6), {}, '{"a":1,"b":5,"c":6}'),
    (filled, (1, 2), {}, '{"a":1,"rest":[2]}'),
    (
        named_like_ours,
        (),
        {"self": 1, "fn": "f", "args": 2, "owner": "o", "limit": 3},
        '{"self":1,"fn":"f","args":2,"owner":"o","limit":3}',
    ),
    (free, (), {"context": 1, "self": 2, "fn": 3}, '{"context":1,"self":2,"fn":3}'),
]


@pytest.mark.parametrize(("fn", "args", "kwargs", "stored"), CALLS)
def test_arguments_arrive_as_python_would_bind_them(
    fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], stored: str
) -> None:
    activity = pgflow.activity(fn)
    assert activity.encode_arguments(args, kwargs) == stored
    found, named = activity.decode_arguments(stored)
    assert fn(None, *found, **named) == fn(None, *args, **kwargs)
    assert calling(activity, *args, **kwargs) == fn(None, *args, **kwargs)


def test_inputs_by_name() -> None:
    """Whoever writes them by hand, or starts many, names everything; lists and defaults included."""
    for fn, given, expected in (
        (several, {"names": ["Ann"]}, "Ann"),
        (positional, {"a": 1}, "1 2 3"),
        (positional, {"a": 1, "c": 5}, "1 2 5"),
        (filled, {"rest": [7]}, "1 (7,)"),
        (clashing, {"x": 1, "rest": [2], "z": 3}, "1 (2,) 1 {'z': 3}"),
    ):
        parameters, _ = parameters_of(fn)
        args, kwargs = parameters.decode(json.dumps(given), "it")
        assert fn(None, *args, **kwargs) == expected
        args, kwargs = parameters.decode(parameters.encode_named(given, "it", 1000), "it")
        assert fn(None, *args, **kwargs) == expected
    with pytest.raises(pgflow.SerializationError, match='"names" of it does not fit'):
        parameters_of(several)[0].decode('{"names":"Ann"}', "it")
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        parameters_of(positional)[0].encode_named({"b": 1}, "it", 1000)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        parameters_of(positional)[0].encode_named({"a": 1, "z": 1}, "it", 1000)


def test_what_does_not_bind() -> None:
    def taken(ctx: Any, **more: Any) -> None: ...

    with pytest.raises(TypeError, match=r"positional.*\(a: 'int', b: 'int' = 2, /, c: 'int' = 3\).*after its context"):
        pgflow.activity(positional).encode_arguments((), {"a": 1})
    with pytest.raises(TypeError, match='"ctx" is the parameter for its context'):
        pgflow.activity(taken).encode_arguments((), {"ctx": 1})  # type: ignore[arg-type]  # its name is taken
    with pytest.raises(pgflow.SerializationError, match='argument "names" of activity "several"'):
        pgflow.activity(several).encode_arguments((1,), {})


# Asynchronous or not


class Sender:
    async def __call__(self, ctx: Any, n: int) -> int:
        return n


def marked(fn: Any) -> Any:
    """As libraries mark functions that return a coroutine."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(fn)
    fn._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return fn


async def plus(ctx: Any, n: int) -> int:
    await asyncio.sleep(0)
    return n + 1


def plain(ctx: Any, n: int) -> int:
    return n + 1


def beneath(fn: Any) -> Any:
    @functools.wraps(fn, assigned=("__doc__",))
    def wrapped(ctx: Any, n: int) -> Any:
        return fn(ctx, n)

    wrapped.__wrapped__ = fn
    return wrapped


@pytest.mark.parametrize(
    "make",
    [
        lambda: plus,
        lambda: TOOLS.timed(plus),
        lambda: TOOLS.timed(TOOLS.timed(plus)),
        lambda: TOOLS.logged(TOOLS.timed(plus)),
        lambda: beneath(functools.partial(plus)),
        lambda: beneath(Sender()),
        lambda: marked(lambda ctx, n: plus(ctx, n)),
    ],
)
def test_what_is_asynchronous(make: Callable[[], Any]) -> None:
    assert is_async(make())
    assert calling(pgflow.activity(name="it")(make()), 1) in (1, 2)
    workflow = pgflow.workflow(name="it")(make())
    assert run(workflow, 1).output in (1, 2)

    @pgflow.workflow
    async def outer(ctx: pgflow.WorkflowContext) -> int:
        return await ctx.inline(workflow, 1)

    assert run(outer).output in (1, 2)


def test_what_is_not() -> None:
    assert not is_async(plain) and not is_async(TOOLS.timed(plain)) and not is_async(functools.partial(plain))
    with pytest.raises(TypeError, match="expected an `async def`, found a plain `def`"):
        pgflow.workflow(TOOLS.timed(plain))


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nobody leaves a coroutine to the collector."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


async def test_decorators_that_belie_their_function(dsn: str, quiet: None) -> None:
    """A worker names the mistake, and so does the unit test."""

    @pgflow.activity
    def hides_it(ctx: pgflow.ActivityContext) -> Any:
        return plus(ctx, 1)

    def at_once(fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapper(*args: Any) -> Any:
            return 7

        return wrapper

    @pgflow.activity
    @at_once
    async def answers(ctx: pgflow.ActivityContext) -> int:
        return 1

    @pgflow.workflow
    async def both(ctx: pgflow.WorkflowContext) -> list[str]:
        found = []
        for activity in (hides_it, answers):
            try:
                await ctx.activity(activity)
            except pgflow.ActivityFailed as error:
                found.append(f"{error.attempts} {error.error_message}")
        return found

    @pgflow.workflow
    async def forgets(ctx: pgflow.WorkflowContext) -> Any:
        return ctx.sleep(1)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[both, forgets]):
        for output in (run(both).output, await (await client.dispatch(both)).output(30)):
            assert (
                "1 the activity" in output[0] and "returned a coroutine" in output[0] and "functools.wraps" in output[0]
            )
            assert "1 activity" in output[1] and "returned 7 and nothing to await" in output[1]
        with pytest.raises(
            pgflow.WorkflowFailed, match="returned a coroutine, which nobody has awaited. Is an `await` missing"
        ):
            await (await client.dispatch(forgets)).output(30)
