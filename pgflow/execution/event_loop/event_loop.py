"""The event loop on which one run of a workflow executes: a first-in-first-out queue of callbacks and nothing else.

Replay must take every decision as it was taken before, including those of `gather`, `TaskGroup`, `wait`, locks and
queues. On the worker's own loop their order would depend on sockets, timers and whatever else runs there. Here it
depends only on the order in which results are delivered: the worker delivers one, drains the queue to rest, and
delivers the next. Timers, threads and I/O are refused, with the name of the durable step to use instead.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from threading import get_ident
from types import FrameType
from typing import Any, NoReturn, Protocol, TypeVar

from pgflow.codec import described
from pgflow.errors import EngineError, NondeterminismError
from pgflow.execution.event_loop.completing import MAKERS, check_waits, coroutines_to_complete
from pgflow.execution.event_loop.generators import close_at_once, collecting, left_generator
from pgflow.execution.event_loop.refused import INSTEAD, REFUSED
from pgflow.execution.event_loop.spinning import LOOK_EVERY, RunInterrupted, line_of_task
from pgflow.execution.event_loop.stage import stage
from pgflow.execution.event_loop.tasks import BLOCK, PLACE_BITS, RunFuture, RunTask, hash_of, number_groups

T = TypeVar("T")

log = logging.getLogger("pgflow.execution")


class _Ready(asyncio.Handle):
    """A callback that is ready: asyncio's own handle without what is needed only for debugging.

    `call_soon` fills it in: asyncio's constructor takes ten times as long, and each step makes a few.
    """

    __slots__ = ()
    _context: contextvars.Context
    _callback: Callable[..., object]
    _args: tuple[Any, ...]
    _cancelled: bool
    _repr = _source_traceback = None


_new_ready: Callable[[type[_Ready]], _Ready] = object.__new__


class ResultOrderView(Protocol):
    """What a task asks of the order of results. `Order` says what each of these is."""

    passed: int


class RunLoop(asyncio.AbstractEventLoop):
    """The deterministic event loop of one run.

    Args:
        name: returns the workflow and its id, for messages.
        seed: the same in every life of the run, and different in other runs.
        now: the run's `now()` in seconds since the epoch; what `loop.time()` answers.
        fatal: called with a refusal, which ends the run whatever the code does with the exception.
        look: asked after every `LOOK_EVERY` callbacks whether to stop draining.
    """

    __slots__ = (
        "_crowded",
        "_discarded",
        "_left",
        "_look",
        "_name",
        "_ready",
        "_time",
        "_to_complete",
        "end_with_fatal",
        "frozen",
        "futures",
        "interrupting",
        "leaving",
        "made",
        "order",
        "place",
        "tasks",
        "thread",
    )

    def __init__(
        self,
        name: Callable[[], str],
        seed: int,
        now: Callable[[], float],
        fatal: Callable[[EngineError], None],
        look: Callable[[], bool],
    ) -> None:
        self._name = name
        self.place = seed & PLACE_BITS
        self._time = now
        self._look = look
        self.end_with_fatal = fatal
        """Ends the run with an error."""
        self.interrupting = False
        """Whether another thread is about to raise an exception in the code that executes; see `spinning.interrupt`."""
        self._ready: deque[_Ready] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self._crowded = 64
        self.made = 0
        self.frozen = False
        """Whether a task waits for something that the code must not be able to observe."""
        self.thread = 0
        """The thread in which code of the run is executing, if any."""
        self.futures = 0
        self.order: ResultOrderView | None = None
        """The order in which results reach the code, while the run is in memory."""
        self.leaving: AsyncGenerator[Any, Any] | None = None
        """The asynchronous generator that is being closed because the code has left it before its end."""
        self._discarded = False
        self._left: list[AsyncGenerator[Any, Any]] = []
        self._to_complete: dict[int, tuple[Any, asyncio.Task[Any]]] = {}

    def drain(self, deliver_next: Callable[[], bool] | None = None) -> None:
        """Run callbacks until none is ready, or until `look` says that it is enough. To be called from a plain callback
        on a `stage`, not from within a task.

        Args:
            deliver_next: called whenever none is ready; if it returns true, there may be more.
        """
        if deliver_next is None and not self._ready:
            return
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(None, self._close_generator)
        try:
            try:
                self.thread = get_ident()
                ready, left = self._ready, LOOK_EVERY
                while True:
                    while ready and not self.frozen:
                        if not left:
                            left = LOOK_EVERY
                            if self._look():
                                return
                        left -= 1
                        handle = ready.popleft()
                        if handle._cancelled:
                            continue
                        try:
                            handle._context.run(handle._callback, *handle._args)
                        except (SystemExit, KeyboardInterrupt):
                            # asyncio raises these through the loop *after* it has stored them in the task. The task's
                            # owner finds them there; a workflow that calls sys.exit() must not end the worker.
                            continue
                        except BaseException as error:
                            self.call_exception_handler(
                                {"message": f"Exception in callback {handle._callback!r}", "exception": error}
                            )
                    if deliver_next is None or not deliver_next():
                        return
            finally:
                self.thread = 0
                while self.interrupting:  # the exception is on its way, and arrives here at the latest
                    time.sleep(0)
        except RunInterrupted:
            self.thread = 0

    def next_line(self) -> str:
        """The line of the user's code at which the next task that is ready goes on."""
        for handle in self._ready:
            task = getattr(handle._callback, "__self__", None)
            if isinstance(task, asyncio.Task):
                return line_of_task(task)
        return "a callback"

    @property
    def at_rest(self) -> bool:
        """Whether no callback is ready."""
        return not self._ready

    def rests_after(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether no code of the run could go on if the running task waited now."""
        # A cancellation that the task has not seen yet finds it where it waits next.
        return not self._ready and type(task) is RunTask and not task.eager and not task._must_cancel  # type: ignore[attr-defined]

    def freeze(self) -> asyncio.Future[None]:
        """A future to be awaited at once: no other code of the run goes on before `thaw`, so that the wait cannot be
        observed.
        """
        self.frozen = True
        return asyncio.Future(loop=self)  # without a number: a replay may not wait here

    def thaw(self, future: asyncio.Future[None]) -> None:
        """Let the code that awaits the future go on before everything else that is ready, as if it had not waited."""
        self.frozen = False
        before = len(self._ready)
        if not future.done():
            future.set_result(None)
        if len(self._ready) > before:
            self._ready.rotate(1)

    def discard(self) -> None:
        """Forget the run: close the frames of its tasks without running another step of them.

        A `finally` in those frames does run, on this loop: what it begins is forgotten too, and does not reach the
        worker.
        """
        self._ready.clear()
        self._forget_done()
        self._discarded = True
        if not (self.tasks or self._left):
            return
        with stage():
            asyncio._set_running_loop(self)
            self.thread = get_ident()
            try:
                while self.tasks:
                    tasks, self.tasks = self.tasks, []
                    self._close(tasks)
                    self._forget_done()
                while self._left:
                    self._close_quietly(self._left.pop())
            finally:
                self.thread = 0
        self._ready.clear()

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Called when an asynchronous generator is freed before its end because the code has left it, by `break` for
        example.

        What its `finally` does at once is done here, as it is of a plain generator. It cannot wait for anything, since
        nobody waits for it. One that only the cyclic garbage collector finds is closed with the run, because a replay
        would not collect it at the same moment.
        """
        leaving = self.leaving
        if self._discarded:
            self._close_quietly(generator)
        elif collecting() or (leaving is None and self.thread != get_ident()):
            self._left.append(generator)
        else:
            thread, self.thread, self.leaving = self.thread, 0, generator  # it calls no steps
            try:
                waits = close_at_once(generator)
            except EngineError:
                pass  # the run ends with it
            except Exception as error:
                self.call_exception_handler(
                    {"message": f"Exception in {generator!r}, left before its end", "exception": error}
                )
            else:
                if waits:
                    self.end_with_fatal(left_generator(self._name(), generator))
            finally:
                self.thread, self.leaving = thread, leaving

    def _close_quietly(self, generator: AsyncGenerator[Any, Any]) -> None:
        try:
            close_at_once(generator)
        except BaseException as error:  # noqa: BLE001 — user code in a `finally` of a run that is gone
            log.debug("%s: %r while a generator was closed", self._name(), error)

    def _forget_done(self) -> None:
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            if not task.done():
                self.tasks.append(task)
            elif not task.cancelled() and issubclass(type(task.exception()), EngineError):
                task._log_traceback = False  # the run has ended with it: reporting it once is enough

    def _close(self, tasks: list[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # dropped on purpose
            coroutine = task.get_coro()
            for _ in range(10):  # a frame may await again while it is closed (TaskGroup does); never for ever
                try:
                    if coroutine is not None:
                        coroutine.close()
                    break
                except RuntimeError:
                    continue
                except BaseException as error:  # noqa: BLE001 — user code in a `finally` of a run that is gone
                    log.debug("%s: %s while its frames were closed", self._name(), described(error))
                    break
            waiter = task._fut_waiter  # type: ignore[attr-defined]
            if waiter is not None:
                waiter.cancel()  # it would refer to the task, and the task to it

    # What asyncio asks of a loop

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = _new_ready(_Ready)
        handle._context = contextvars.copy_context() if context is None else context
        handle._loop = self  # type: ignore[attr-defined]
        handle._callback = callback
        handle._args = args
        handle._cancelled = False
        self._ready.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        try:
            check_waits(sys._getframe(1), self._ready)
        except NondeterminismError as error:
            self._end_with(error)
        return RunFuture(self.next_future(), self)

    def next_future(self) -> int:
        """The hash of the next future, which decides its place in sets."""
        maker = self._maker()
        maker.futures += 1
        return hash_of(maker.place, maker.futures % BLOCK)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        caller = sys._getframe(1)
        if caller.f_code in MAKERS:
            task = self._task_to_complete(coro, caller)
            if task is not None:
                return task
        return self._new_task(coro, name, context, options)

    def begin(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """The task of the workflow itself, which no code of the workflow asks for."""
        return self._new_task(coro, name, None, {})

    def _task_to_complete(self, coro: Any, caller: FrameType) -> asyncio.Task[Any] | None:
        """The task of an argument of `as_completed`, if that asks: it makes tasks in any order, this loop in the order
        in which the arguments were given.
        """
        known = self._to_complete.pop(id(coro), None)
        if known is not None:
            return known[1]
        try:
            given = coroutines_to_complete(caller)
        except NondeterminismError as error:
            self._end_with(error)
        if given is None:
            return None
        self._to_complete = {id(one): (one, self._new_task(one, None, None, {})) for one in given}
        return self._to_complete.pop(id(coro))[1]

    def _new_task(
        self, coro: Any, name: str | None, context: contextvars.Context | None, options: dict[str, Any]
    ) -> asyncio.Task[Any]:
        maker = self._maker()
        maker.made += 1
        number = maker.made % BLOCK
        if name is None:
            above = f"{maker.get_name()}." if isinstance(maker, RunTask) else "Task-"
            name = f"{above}{number}"
        task = RunTask(coro, maker.place, number, loop=self, name=name, context=context, **options)
        if len(self.tasks) >= self._crowded:
            self.tasks = [other for other in self.tasks if not other.done()]
            self._crowded = max(64, 2 * len(self.tasks))
        self.tasks.append(task)
        return task

    def even_out(self) -> None:
        """From here on the running task gives its tasks the same numbers in every life, whatever replay has skipped."""
        maker = self._maker()
        maker.made = -(-maker.made // BLOCK) * BLOCK
        maker.futures = -(-maker.futures // BLOCK) * BLOCK

    def _maker(self) -> RunTask[Any] | RunLoop:
        task = asyncio.current_task(self)
        return task if isinstance(task, RunTask) else self

    def time(self) -> float:
        return self._time()

    get_debug = staticmethod(bool)
    """False: each future asks, and so there is no call of Python code in it."""

    def set_debug(self, enabled: bool) -> None:
        """Debug mode would time callbacks by a real clock; it is not supported."""

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # Without the traceback: this is called by the garbage collector too, in the middle of whatever runs then, and
        # formatting one parses source code.
        error = context.get("exception")
        log.error("%s: %s: %s", self._name(), context.get("message"), "" if error is None else described(error))

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: asynchronous generators live and end with the run."""

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        raise AssertionError("a run's loop hands out no timers")

    def _end_with(self, error: NondeterminismError) -> NoReturn:
        error.args = (f"{self._name()}: {error}.",)
        self.end_with_fatal(error)
        raise error

    def _refuse(self, method: str) -> NoReturn:
        instead = INSTEAD.get(method, "a workflow does no I/O: do it in an activity")
        error = NondeterminismError(
            f"{self._name()}: the workflow's code asked its event loop for `{method}`. {instead}.",
            expected="nothing but durable steps",
            found=f"loop.{method}",
        )
        self.end_with_fatal(error)
        raise error


def _refusal(method: str) -> Callable[..., NoReturn]:
    def refuse(self: RunLoop, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse(method)

    refuse.__name__ = method
    return refuse


number_groups(RunLoop)
for _method in REFUSED:
    setattr(RunLoop, _method, _refusal(_method))
# AbstractEventLoop declares its methods abstract only by raising NotImplementedError, so that none stands in the way.
