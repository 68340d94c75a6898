"""Code of a run that never comes to rest: it is found, named by its line, and ended, so that it harms only its own
workflow.

turns of its event loop without end    counted while the loop is drained (`SpinTimer`); other runs go on in between
a loop without an `await`              ended by another thread (`interrupt`), which raises an exception in it
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from pgflow.errors import EngineError

LOOK_EVERY = 1024
"""How many callbacks of a run are executed between two looks at whether others wait."""

MOST = 1_000_000
"""How many callbacks code may execute without calling a step or getting a result. Counted and not timed, so that it is
the same on every machine.
"""

_NOT_THE_USERS = (os.path.dirname(asyncio.__file__), str(Path(__file__).resolve().parents[2]))
"""The folders with the code of asyncio and of pgflow."""


class SpinningRun(Protocol):
    """What is asked of a run whose code may spin. `Run` says what each of these is."""

    @property
    def label(self) -> str: ...
    @property
    def calls(self) -> int: ...
    @property
    def results(self) -> int: ...
    @property
    def fatal(self) -> EngineError | None: ...
    @property
    def loop(self) -> TurningLoop: ...
    @property
    def ended(self) -> bool: ...
    def note_fatal(self, error: EngineError) -> None: ...
    def out_of_time(self) -> bool: ...


class TurningLoop(Protocol):
    """What is asked of the loop that its code runs on. `RunLoop` says what each of these is."""

    interrupting: bool

    @property
    def thread(self) -> int: ...
    def next_line(self) -> str: ...
    def end_with_fatal(self, error: EngineError) -> None: ...


class SpinTimer:
    """How long a run's code has gone on without calling a step or getting a result."""

    __slots__ = ("_at", "_callbacks", "_run")

    def __init__(self, run: SpinningRun) -> None:
        self._run = run
        self._at = (0, 0)
        self._callbacks = 0

    def look(self) -> bool:
        """Called after another `LOOK_EVERY` callbacks: whether to leave the code because it spins or others wait."""
        run = self._run
        at = (run.calls, run.results)
        if at != self._at:
            self._at, self._callbacks = at, 0
        self._callbacks += LOOK_EVERY
        spins = self._callbacks >= MOST
        if run.ended:
            return self._callbacks >= MOST // 10  # the code has ended, and nobody waits for what it left behind
        if spins and run.fatal is None:
            run.note_fatal(spinning(run.label, run.loop))
        return run.fatal is not None or run.out_of_time()


def spinning(label: str, loop: TurningLoop) -> EngineError:
    """The error for a run whose event loop never comes to rest."""
    where = loop.next_line()
    return EngineError(
        f"{label} spins: its event loop has turned {MOST} times without a step or a result, at {where}. Nothing in "
        "the workflow changes while it turns. Wait for what is to happen: `await ctx.listen(...)`, `await "
        "ctx.sleep(...)`, an `asyncio.Event` that other code of the workflow sets; and put computations in an "
        "activity.",
        expected="code that waits for a step",
        found=f"code that spins at {where}",
    )


def blocking(label: str, seconds: float, where: str) -> EngineError:
    """The error for a run whose code does not give its thread back."""
    return EngineError(
        f"{label} was ended after {seconds:.0f} s in which its code neither waited nor returned, at {where}: nothing "
        "else could run in its process. A workflow's code decides what is done; put computations and calls that "
        "block in a plain `def` activity, which runs in a thread, and repetition in `ctx.loop`.",
        expected="code that waits for a step",
        found=f"code that does not end at {where}",
    )


class RunInterrupted(BaseException):
    """Raised by another thread in the code of a run. No `Exception`: the code must not take it for one of its own."""


def interrupt(loop: TurningLoop, error: EngineError) -> bool:
    """From another thread: end the run with `error` and raise in its code, if that is executing; returns whether this
    was begun.

    An exception that is set on a thread is raised at its next bytecode, wherever that is, and must not hit what comes
    after the run. So the loop is notified first, and does not leave `drain` until the exception has arrived (it is
    created in that thread) or the loop learns that there is none: each side writes before it reads what the other
    writes.
    """

    class Arriving(RunInterrupted):
        def __init__(self) -> None:
            super().__init__(str(error))
            try:
                loop.end_with_fatal(error)
            finally:
                loop.interrupting = False

    if loop.interrupting:
        return False  # one is on its way: it arrives when a blocking call has returned
    loop.interrupting = True
    thread = loop.thread
    if thread and ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Arriving)):
        return True
    loop.interrupting = False
    return False


def line_of(frame: FrameType | None) -> str:
    """The line of the user's code that a thread executes."""
    innermost = frame
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    return _line(frame if frame is not None else innermost)


def line_of_task(task: asyncio.Task[Any]) -> str:
    """The innermost line of the user's code at which a task waits."""
    found: FrameType | None = None
    waits: Any = task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None) or getattr(waits, "ag_frame", None)
        if frame is not None and (found is None or not frame.f_code.co_filename.startswith(_NOT_THE_USERS)):
            found = frame
        waits = (
            getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None) or getattr(waits, "ag_await", None)
        )
    return _line(found)


def _line(frame: FrameType | None) -> str:
    if frame is None:
        return "a line that cannot be told"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
