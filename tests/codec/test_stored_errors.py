"""Exceptions as text: whatever they do when they are read, as much of them as can be got, bounded."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

import pgflow
from pgflow import errors
from pgflow.codec import decode_error, encode_error
from pgflow.testing import run


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Interrupting(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


class LazyCause(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not loaded")


class Disguised(Exception):
    @property  # type: ignore[misc]  # hostile on purpose
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class Odd(str):
    """A text that is none when it is used."""

    def replace(self, *args: Any) -> Any:
        raise RuntimeError("no")

    encode = __getitem__ = __add__ = __str__ = replace  # type: ignore[assignment]


class OddMessage(Exception):
    def __str__(self) -> str:
        return Odd("odd words")


class OddNotes(Exception):
    __notes__ = 7  # type: ignore[assignment]


class Meta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit


class OddName(Exception, metaclass=Meta):
    pass


class Answering(Exception):
    """Has an answer to everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: 1 / 0


@dataclass(frozen=True)
class Frozen(Exception):
    """Compares, is hashed by its fields, and lets nothing be set."""

    what: str


def chained(length: int) -> BaseException:
    first = error = ValueError("0")
    for number in range(1, length):
        error.__cause__ = ValueError(str(number))
        error = error.__cause__
    return first


def circle() -> BaseException:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__context__ = other, one
    return one


def shared() -> BaseException:
    error: Exception = ValueError("deep")
    for _ in range(40):
        error = ExceptionGroup("both", [error, error])
    return error


def noted() -> BaseException:
    error = ValueError("noted")
    for _ in range(1000):
        error.add_note("n" * 1000)
    return error


HOSTILE: list[tuple[str, Callable[[], BaseException], str]] = [
    ("Unspeakable", lambda: Unspeakable("x"), "cannot be had"),
    ("Exiting", lambda: Exiting("x"), "cannot be had"),
    ("Interrupting", lambda: Interrupting("x"), "cannot be had"),
    ("LazyCause", lambda: LazyCause("x"), "x"),
    ("Disguised", lambda: Disguised("x"), "x"),
    ("OddMessage", lambda: OddMessage("x"), "odd words"),
    ("OddNotes", lambda: OddNotes("x"), "x"),
    ("OddName", lambda: OddName("x"), "x"),
    ("Answering", lambda: Answering("x"), "x"),
    ("Frozen", lambda: Frozen("x"), "x"),
    ("ValueError", lambda: ValueError("a\0b\ud800" + "x" * 10_000_000), "a\\0b\\ud800x"),
    ("ValueError", lambda: chained(5_000), "0"),
    ("ValueError", lambda: circle(), "one"),
    ("ValueError", lambda: noted(), "noted"),
    ("ExceptionGroup", lambda: shared(), "both (2 sub-exceptions)"),
    ("UnicodeDecodeError", lambda: UnicodeDecodeError("utf-8", b"\xff" * 100, 0, 1, "bad"), "can't decode"),
    ("SystemExit", lambda: SystemExit(3), "3"),
    ("GeneratorExit", lambda: GeneratorExit(), ""),
]


@pytest.mark.parametrize(
    ("kind", "make", "message"), HOSTILE, ids=[f"{number} {kind}" for number, (kind, *_) in enumerate(HOSTILE)]
)
def test_as_much_as_can_be_had_is_told(kind: str, make: Callable[[], BaseException], message: str) -> None:
    try:
        raise make()
    except BaseException as caught:
        text = encode_error(caught)
    told = decode_error(text)
    assert told["type"] == kind and message in told["message"]
    assert len(told["message"]) <= 8_000 + 40 and len(told["traceback"]) <= 8_000
    assert kind in told["traceback"] and "\\u0000" not in text
    text.encode()


def test_the_traceback_names_the_line() -> None:
    for error in (ValueError("plain"), LazyCause("lazy"), shared()):
        try:
            raise error
        except BaseException as caught:
            assert "raise error" in decode_error(encode_error(caught))["traceback"]


@pytest.mark.parametrize("text", ['"just text"', "9" * 5000, "[" * 3000 + "]" * 3000, "[1]", "null"])
def test_what_is_no_error_is_shown_as_it_is(text: str) -> None:
    told = decode_error(text)
    assert told["type"] == "Exception" and told["message"]


PUBLIC = [
    kind for _, kind in sorted(vars(errors).items()) if isinstance(kind, type) and issubclass(kind, errors.PgflowError)
]
GIVEN = {
    "activity": "charge", "attempts": 3, "error_type": "OSError", "error_message": "gone", "location": "{1}",
    "workflow_id": uuid.UUID(int=7),
    "expected": "one", "found": "other",
}  # fmt: skip


@pytest.mark.parametrize("kind", PUBLIC, ids=[kind.__name__ for kind in PUBLIC])
def test_errors_are_copied_and_pickled_with_their_attributes(kind: type[errors.PgflowError]) -> None:
    names = [
        name
        for name, each in inspect.signature(kind.__init__).parameters.items()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    error = kind("the message", **{name: GIVEN[name] for name in names})
    error.add_note("a note")
    ways = [
        copy.copy,
        copy.deepcopy,
        *(lambda it, p=p: pickle.loads(pickle.dumps(it, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
    ]
    for way in ways:
        other = way(error)
        assert type(other) is kind and str(other) == "the message" and other.args == error.args
        assert vars(other) == vars(error) and [getattr(other, name) for name in names] == [
            GIVEN[name] for name in names
        ]


class Own(pgflow.NonRetryable):
    """An application's own, with a constructor of its own."""

    def __init__(self, number: int, *, reason: str) -> None:
        super().__init__(f"{number}: {reason}")
        self.number = number


def test_an_applications_own_kind_of_them_too() -> None:
    other = pickle.loads(pickle.dumps(Own(7, reason="why")))
    assert type(other) is Own and str(other) == "7: why" and other.number == 7


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def fails(ctx: pgflow.ActivityContext) -> None:
    raise OSError("gone")


def test_what_a_step_raises_can_be_pickled_and_copied() -> None:
    """It remembers its step, which is nobody else's business."""
    seen: list[Any] = []

    @pgflow.workflow
    async def look(ctx: pgflow.WorkflowContext) -> None:
        async def branch(ctx: pgflow.WorkflowContext) -> None:
            waiting = ctx.sleep(100)
            try:
                await ctx.activity(fails)
            finally:
                del waiting

        steps: list[Callable[[], Awaitable[object]]] = [
            lambda: ctx.activity(fails),
            lambda: ctx.branch(branch),
            lambda: late(ctx),
        ]
        for step in steps:
            try:
                await step()
            except (pgflow.ActivityFailed, TimeoutError) as error:
                seen.append([error, pickle.loads(pickle.dumps(error)), copy.deepcopy(error), copy.copy(error)])

    async def late(ctx: pgflow.WorkflowContext) -> None:
        async with ctx.timeout(1):
            await ctx.sleep(100)

    run(look).output  # noqa: B018
    assert len(seen) >= 3
    for error, *others in seen:
        assert all(type(other) is type(error) and str(other) == str(error) for other in others)


RAISED = [*(make for kind, make, _ in HOSTILE if kind != "GeneratorExit"), KeyboardInterrupt]


@pytest.mark.parametrize("make", RAISED, ids=range(len(RAISED)))
def test_whatever_leaves_a_workflow_is_its_failure(make: Callable[[], BaseException]) -> None:
    """Out of its own code, a branch, a loop, a join; with steps left behind."""
    error = make()

    @pgflow.workflow
    async def plain(ctx: pgflow.WorkflowContext) -> None:
        raise error

    @pgflow.workflow
    async def branch(ctx: pgflow.WorkflowContext) -> None:
        async def inner(ctx: pgflow.WorkflowContext) -> None:
            await ctx.activity(pass_by)
            raise error

        await ctx.join(inner, lambda ctx: ctx.sleep(5))

    @pgflow.workflow
    async def loop(ctx: pgflow.WorkflowContext) -> None:
        async def turn(ctx: pgflow.WorkflowContext, state: None) -> pgflow.Continue[None]:
            await ctx.activity(pass_by)
            raise error

        await ctx.loop(turn)

    for workflow in (plain, branch, loop):
        ran = run(workflow)
        assert ran.status == "failed"
        assert json.loads(ran.history.error or "{}")["type"] == type.__dict__["__name__"].__get__(type(error))


@pgflow.activity
async def pass_by(ctx: pgflow.ActivityContext) -> None: ...
