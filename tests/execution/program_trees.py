"""Random programs: trees of what a workflow can do at once and one after the other, and the workflow that does it.

Each leaf gives back its own place in the tree, so that a result that reaches another step is noticed, and what the code
sees is written down when a result has been delivered. Signals keep arriving, of two kinds by turns, whether somebody
listens or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

import pgflow
from tests.execution.combinators import MANY, Combinators
from tests.execution.lives import Program, Seen
from tests.execution.neighbours import NeighbourLives
from tests.execution.programs import echo, fails, second_time

Ctx = pgflow.WorkflowContext
Node = tuple[Any, ...]
"""A kind, and what belongs to it: numbers, then the nodes below."""


@pgflow.signal
@dataclass
class Ping:
    number: int


@pgflow.signal
@dataclass
class Pong:
    number: int


class TreeLives(NeighbourLives):
    """One random program."""

    letters = ("ping", "pong", "pong", "ping", "pong") * 100
    crowd = 4
    starts_none_when_cancelled = False


class CancelledTreeLives(TreeLives):
    """One that somebody cancels at any moment."""

    cancels = True


SHORT = st.sampled_from([0.002, 0.3, 0.5])
LONG = st.sampled_from([3, 30])
LEAVES = st.one_of(
    st.sampled_from([("act",), ("act",), ("facts",), ("flaky",), ("fails",), ("version",), ("shield",), ("sleep", 0)]),
    st.tuples(st.just("sleep"), SHORT | LONG),
    st.sampled_from(
        [
            ("hear", Ping),
            ("hear", Pong),
            ("hear", Ping, Pong),
            ("hear many", 1),
            ("hear many", 3),
            ("child",),
            ("failing",),
        ]
    ),
    st.tuples(st.just("hear in time"), SHORT | LONG),
)


def _wider(below: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    many = st.lists(below, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.tuples(st.just("seq"), many),
        st.tuples(st.sampled_from(["gather", "join", "group", "first", "first and cancel", "as completed"]), many),
        st.tuples(st.sampled_from(MANY), many),
        st.tuples(st.sampled_from(["branch", "catch", "swallow", "leave"]), below),
        st.tuples(st.just("timeout"), SHORT | LONG, below),
        st.tuples(st.just("loop"), st.integers(1, 3), st.integers(1, 3), below),
    )


TREES: st.SearchStrategy[Node] = st.recursive(LEAVES | st.just(("raise",)), _wider, max_leaves=12)

AT_ONCE = {"gather", "join", "group"}
ANY_ORDER = AT_ONCE | {
    "act", "flaky", "fails", "version", "shield", "sleep", "hear", "child", "failing", "seq", "branch", "loop",
}  # fmt: skip
"""Whatever order things complete in, a program of these alone gives the same, unless listens at once share out the
signals.
"""


def gives_the_same_in_any_order(tree: Node) -> bool:
    kinds = set(_kinds(tree))
    return kinds <= ANY_ORDER and not ("hear" in kinds and kinds & AT_ONCE)


def _kinds(node: Node) -> list[str]:
    below = [
        each for part in node[1:] if isinstance(part, tuple) for each in ([part] if isinstance(part[0], str) else part)
    ]
    return [node[0], *(kind for each in below for kind in _kinds(each))]


def program_of(tree: Node) -> Program:
    """The workflow that does what the tree says, and goes on after whatever fails."""

    def build(seen: Seen) -> pgflow.Workflow[Any, Any]:
        @pgflow.workflow
        async def program(ctx: Ctx) -> Any:
            try:
                value = await _Interpreter(seen).do(tree, ctx, "0")
            except Exception as error:
                value = type(error).__name__
                seen.append(value, ctx)
            return [value, await ctx.activity(echo, "end")]

        return program

    return build


class _Interpreter(Combinators):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    async def do(self, node: Node, ctx: Ctx, path: str) -> Any:
        kind = node[0]
        method = getattr(self, "_" + kind.replace(" ", "_"), None)
        if method is not None:
            return await method(node, ctx, path)
        return await self._leaf(node, ctx, path)

    def _leaf(self, node: Node, ctx: Ctx, path: str) -> Coroutine[Any, Any, Any]:
        """One step, called at once and awaited later."""
        kind = node[0]
        if kind == "sleep":
            return self._noted(ctx.sleep(node[1]), ctx, path, None)
        if kind.startswith("hear"):
            return self._heard(node, ctx, path)
        activity = {"flaky": second_time, "fails": fails, "raise": fails}.get(kind, echo)
        step = ctx.activity(activity, path)
        if kind == "fails":
            return self._failure(step, ctx, path)
        return self._noted(step, ctx, path, path, facts=kind == "facts", shield=kind == "shield")

    async def _noted(
        self, step: Any, ctx: Ctx, path: str, expected: Any, facts: bool = False, shield: bool = False
    ) -> Any:
        try:
            value = await (asyncio.shield(step) if shield else step)
        except asyncio.CancelledError:
            self._seen.append(f"{path} cancelled", ctx)
            raise
        assert value == expected, f"the step of {path} got the result of {value}"
        self._seen.append(path, ctx)
        if facts:
            self._seen.append(f"{ctx.now()} {ctx.random()} {ctx.uuid4()}", ctx)
        return value

    def _heard(self, node: Node, ctx: Ctx, path: str) -> Coroutine[Any, Any, list[int]]:
        kind, *how = node
        step: Any = (
            ctx.listen_many(Ping, Pong, limit=how[0])
            if kind == "hear many"
            else ctx.listen(*how)
            if kind == "hear"
            else ctx.listen(Ping, timeout=how[0])
        )
        return self._numbers(step, ctx, path)

    async def _numbers(self, step: Any, ctx: Ctx, path: str) -> list[int]:
        try:
            found = await step
        except asyncio.CancelledError:
            self._seen.append(f"{path} cancelled", ctx)
            raise
        numbers = [signal.number for signal in (found if isinstance(found, list) else [found]) if signal is not None]
        self._seen.append(f"{path} heard {numbers}", ctx)
        return numbers

    async def _failure(self, step: Any, ctx: Ctx, path: str) -> str:
        try:
            await step
        except pgflow.ActivityFailed as error:
            assert error.error_message == path
            self._seen.append(f"{path} failed", ctx)
        return "failed"

    def _at_once(self, nodes: tuple[Node, ...], ctx: Ctx, path: str) -> list[Coroutine[Any, Any, Any]]:
        """Steps as they are, all else on branches: a context is used by one task."""
        found: list[Coroutine[Any, Any, Any]] = []
        for i, node in enumerate(nodes):
            if hasattr(self, "_" + node[0].replace(" ", "_")):
                found.append(self._branch(("branch", node), ctx, f"{path}.{i}"))
            else:
                found.append(self._leaf(node, ctx, f"{path}.{i}"))
        return found

    async def _version(self, node: Node, ctx: Ctx, path: str) -> int:
        assert await ctx.check_version(1) == 1
        await ctx.removed("activity", "gone")
        return 1

    async def _child(self, node: Node, ctx: Ctx, path: str) -> str:
        child = await ctx.dispatch(node[0], path=path)
        try:
            output = await child.output()
        except (pgflow.WorkflowFailed, pgflow.WorkflowCancelled) as error:
            self._seen.append(f"{path} {type(error).__name__}", ctx)
            return type(error).__name__
        assert output == {"path": path}, f"the child of {path} gave {output}"
        self._seen.append(f"{path} child", ctx)
        return path

    _failing = _child

    async def _seq(self, node: Node, ctx: Ctx, path: str) -> list[Any]:
        return [await self.do(each, ctx, f"{path}.{i}") for i, each in enumerate(node[1])]

    async def _gather(self, node: Node, ctx: Ctx, path: str) -> list[Any]:
        return list(await asyncio.gather(*self._at_once(node[1], ctx, path)))

    async def _join(self, node: Node, ctx: Ctx, path: str) -> list[Any]:
        return await ctx.join(*self._at_once(node[1], ctx, path))

    async def _group(self, node: Node, ctx: Ctx, path: str) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in self._at_once(node[1], ctx, path)]
        return [task.result() for task in tasks]

    async def _first(self, node: Node, ctx: Ctx, path: str) -> int:
        tasks = [asyncio.ensure_future(each) for each in self._at_once(node[1], ctx, path)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if node[0] == "first and cancel":
            for task in pending:
                task.cancel()
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                self._seen.append(f"{path} failed", ctx)
        first = min(tasks.index(task) for task in done)
        self._seen.append(f"{path} first {first}", ctx)
        return first

    _first_and_cancel = _first

    async def _as_completed(self, node: Node, ctx: Ctx, path: str) -> list[Any]:
        # Tasks, since it keeps what it is given in a set, in which coroutines stand where memory had room for them.
        tasks = [asyncio.ensure_future(each) for each in self._at_once(node[1], ctx, path)]
        values = []
        for each in asyncio.as_completed(tasks):
            values.append(await each)
            self._seen.append(f"{path} number {len(values)}", ctx)
        return values

    def _branch(self, node: Node, ctx: Ctx, path: str) -> Coroutine[Any, Any, Any]:
        return ctx.branch(lambda branch: self.do(node[1], branch, path + "b"))

    async def _catch(self, node: Node, ctx: Ctx, path: str) -> Any:
        try:
            return await self.do(node[1], ctx, path + "c")
        except Exception as error:
            self._seen.append(f"{path} caught {type(error).__name__}", ctx)
            return await self._leaf(("act",), ctx, path)

    async def _swallow(self, node: Node, ctx: Ctx, path: str) -> Any:
        try:
            return await self.do(node[1], ctx, path + "s")
        except asyncio.CancelledError:
            self._seen.append(f"{path} goes on", ctx)
            return await self._leaf(("act",), ctx, path)

    async def _leave(self, node: Node, ctx: Ctx, path: str) -> str:
        for step in self._at_once((node[1],), ctx, path):
            asyncio.ensure_future(step)
        return "left"

    async def _timeout(self, node: Node, ctx: Ctx, path: str) -> Any:
        try:
            async with ctx.timeout(node[1]):
                return await self.do(node[2], ctx, path + "t")
        except TimeoutError:
            self._seen.append(f"{path} late", ctx)
            return "late"

    async def _loop(self, node: Node, ctx: Ctx, path: str) -> int:
        _, turns, interval, below = node

        async def turn(inner: Ctx, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
            await self.do(below, inner, f"{path}l{n}")
            return pgflow.Break(n) if n + 1 == turns else pgflow.Continue(n + 1)

        return await ctx.loop(turn, 0, commit_interval=interval, keep_iterations=1)
