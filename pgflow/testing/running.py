"""A workflow run in memory, for unit tests: no database, no waiting, activities replaced by fakes.

Time is skipped: whatever is slept for, waited for or due later is due at once when nothing else can happen. At each
sleep the workflow leaves memory and is replayed, as after a crash, so that its unit test finds code that a replay could
not repeat.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, ParamSpec, TypeVar
from uuid import UUID

from pgflow.codec import PAYLOAD_LIMIT, encode
from pgflow.definitions.decorated import not_a_workflow, not_an_activity
from pgflow.definitions.descriptors import Activity, Workflow, activity_names
from pgflow.definitions.options import UNSET, deadline_of, given_options
from pgflow.definitions.packets import signal_name
from pgflow.definitions.tags import tags_text
from pgflow.errors import PgflowError
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.activities.resources import Resources
from pgflow.execution.activities.runner import awaited
from pgflow.execution.checks import check_number
from pgflow.execution.engine.host import Limits
from pgflow.execution.engine.recorded_arguments import refuse
from pgflow.execution.engine.run import Run
from pgflow.execution.engine.unawaited import ORIGIN_DEPTH
from pgflow.execution.event_loop.stage import stage
from pgflow.execution.execute import execute
from pgflow.history.stored import StoredHistory
from pgflow.model.commands import Dispatch, Sending, Sent
from pgflow.model.outcomes import Outcome
from pgflow.model.rows import Message
from pgflow.model.writes import Advance, Crossing, Inquiry, Write
from pgflow.testing.harness import outside_of_tasks
from pgflow.testing.memory import Memory
from pgflow.testing.memory_ports import MemoryPorts
from pgflow.testing.watching import failure_of, watched

P = ParamSpec("P")
R = TypeVar("R")

START = datetime(2030, 1, 1, tzinfo=UTC)
"""When a workflow is dispatched, unless a test says otherwise."""

_ID = UUID("019db0c4-8800-7000-8000-000000000001")
_RECEIVER = UUID("019db0c4-8800-7000-8000-000000000002")

Fakes = Mapping[Activity[Any, Any] | str, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Ran(Generic[R]):
    """The result of a workflow that was run in memory.

    Attributes:
        status: completed, failed or cancelled; sleeping when it waits for a signal that nobody sends; sleeping or
            running when it was left at the limit.
        error: what left its code, when it has failed.
        history: what `replay` takes, also under other code: an old run for a test of the new code.
    """

    status: str
    error: BaseException | None
    history: StoredHistory
    _returned: tuple[R] | None

    @property
    def output(self) -> R:
        """What the workflow returned, as a client gets it.

        Raises:
            Exception: what left the code, when it has failed.
            PgflowError: the workflow has not come to its end.
        """
        if self._returned is not None:
            return self._returned[0]
        if self.error is not None:
            raise self.error
        waits = [f"{event.kind} {event.name}".strip() for event in self.history.events if event.status == "pending"]
        raise PgflowError(
            f'workflow "{self.history.name}" has no output, it is {self.status}: it waits at '
            f"{', '.join(waits) or 'nothing'}. "
            "Give the signals that it waits for: run(..., signals=[...])."
        )


def run(
    workflow: Workflow[P, R],
    /,
    *args: Any,
    activities: Fakes | None = UNSET,
    signals: Sequence[Any] = UNSET,
    tags: Mapping[str, Any] | None = UNSET,
    now: datetime = UNSET,
    limit: int = UNSET,
    arguments: Mapping[str, Any] | None = UNSET,
    resources: Sequence[Any] = UNSET,
    **kwargs: Any,
) -> Ran[R]:
    """Run a workflow to its end, in memory, in no time.

    While an activity is executed, no time passes: a timeout around it never fires.

    Args:
        args, kwargs: the workflow's arguments.
        activities: what is called in place of activities, given as themselves or by name: functions of the same
            parameters, the `ActivityContext` first. Activities that are not named here are executed as they are. A fake
            that is not used does no harm; one for a name that no activity has is an error.
        signals: what waits in the workflow's mailbox, in order; a `listen` that finds nothing there times out, if it
            can.
        tags: given at dispatch; those of `workflow.options(tags=...)` if not given.
        now: when it is dispatched; 2030 if not given.
        limit: transactions and turns of its code after which it is left where it is, for workflows that never end;
            100,000 if not given.
        arguments: arguments of the workflow by name, where its parameters have the names of those here.
        resources: what `ctx.resource` of activities finds, and the objects whose methods are activities.

    Raises:
        ValueError: a fake for a name that no activity has.
        TypeError: it is no workflow, the arguments do not fit it, something among the signals is none, a fake that
            cannot be called.
        PgflowError: the workflow starts another one: that needs a database.

    Example:
        ran = run(checkout, order, activities={charge: lambda ctx, order: "receipt"}, signals=[Approved(by="eva")])
        assert ran.output == "receipt"
    """
    if not isinstance(workflow, Workflow):
        raise not_a_workflow(workflow, "pgflow.testing.run")
    given = given_options(
        activities=activities,
        signals=signals,
        tags=tags,
        now=now,
        limit=limit,
        arguments=arguments,
        resources=resources,
    )
    named = given.pop("arguments", None) or {}
    for name in (*given, *(() if arguments is UNSET or "arguments" in named else ("arguments",))):
        if workflow.may_mean(name, len(args)):
            raise TypeError(
                f'pgflow.testing.run({name}=...): the workflow "{workflow.name}" has a parameter "{name}", and so has '
                f'`run`. Give the workflow\'s as run(..., arguments={{"{name}": ...}}).'
            )
    return _run(workflow, args, {**kwargs, **named}, **given)


def _run(
    workflow: Workflow[Any, R],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    activities: Fakes | None = None,
    signals: Sequence[Any] = (),
    tags: Mapping[str, Any] | None = None,
    now: datetime = START,
    limit: int = 100_000,
    resources: Sequence[Any] = (),
) -> Ran[R]:
    tags = workflow.chosen.get("tags") if tags is None else tags
    fakes = _fakes(activities or {})
    check_number(limit, "limit", 1)
    shared = Resources(resources, "pgflow.testing.run(resources=[...])")
    memory = Memory(now)
    timeout = deadline_of(workflow.chosen.get("timeout", workflow.timeout))
    text = workflow.encode_arguments(args, kwargs)
    memory.dispatch(Dispatch(_ID, workflow.name, text, tags_text(tags), timeout=timeout))
    for number, body in enumerate(signals, 1):
        memory.send(_sending(number, body))
    memory.deliver()
    return outside_of_tasks(lambda: _Runner(workflow, memory, fakes, limit, shared).result())


def _fakes(activities: Fakes) -> dict[str, Callable[..., Any]]:
    """Fakes by the names of the activities that they replace.

    Raises:
        TypeError: one cannot be called, or stands for something that is no activity.
        ValueError: one stands for a name that no activity has, so that the real one would be executed; or two for the
            same.
    """
    fakes: dict[str, Callable[..., Any]] = {}
    for replaced, fake in activities.items():
        if isinstance(replaced, Activity):
            name = replaced.name
        elif isinstance(replaced, str):
            name = replaced
            known = activity_names()
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                raise ValueError(
                    "activities: no activity is called "
                    f'"{name}"{f"; is it meant to be {close[0]!r}?" if close else ""} The real one would be '
                    "executed. Give the activity itself, which cannot be misspelt: activities={charge: fake}, or "
                    "charge.options(name=...) "
                    "where it is called by another name."
                )
        else:
            raise not_an_activity(replaced, "pgflow.testing.run(activities={...: fake})")
        if not callable(fake):
            raise TypeError(f'activities: expected a function in place of "{name}", found {fake!r}')
        if name in fakes:
            raise ValueError(f'activities: there are two fakes for "{name}"')
        fakes[name] = fake
    return fakes


def _sending(number: int, body: Any) -> Sending:
    name = signal_name(type(body), "signals")
    text = encode(body, type(body), what=f'signal "{name}"', limit=PAYLOAD_LIMIT)
    return Sending(UUID(int=_ID.int + 1000 + number), _ID, None, None, name, text)


class _Timer:
    def __init__(self, when: datetime, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _Runner(Generic[R]):
    """The worker and the database of one workflow: everything happens one after the other, in the order in which it was
    asked for.
    """

    def __init__(
        self,
        workflow: Workflow[Any, R],
        memory: Memory,
        fakes: Mapping[str, Callable[..., Any]],
        limit: int,
        resources: Resources,
    ) -> None:
        self._resources = resources
        self.journal = self
        self.loops = self
        self.crossings = self
        self.limits = Limits(other_arguments=refuse)
        self._workflow = workflow
        self._memory = memory
        self._ports = MemoryPorts(memory, 0)
        self._run: Run
        self._fakes = fakes
        self._limit = limit
        self._scheduled: deque[Run] = deque()
        self._due: deque[Callable[[], object]] = deque()
        self._calls: deque[ActivityCall] = deque()
        self._timers: list[_Timer] = []
        self._left = False
        self._error: BaseException | None = None
        self._asyncio = asyncio.Runner()

    def result(self) -> Ran[R]:
        """Run it to its end, until it waits for what will not come, or to the limit."""
        memory = self._memory
        with self._asyncio:
            while (run := memory.runs.get(_ID)) is not None and run.status != "failed" and self._limit > 0:
                if run.status == "sleeping":
                    due = min((moment for moment in (run.wake_at, run.deadline) if moment is not None), default=None)
                    if due is None:
                        break
                    memory.now = max(memory.now, due)
                    memory.pass_deadlines()
                self._live()
        returned: tuple[R] | None = None
        error: BaseException | None = None
        stored = memory.stored(_ID)
        if stored.status == "completed":
            returned = (self._workflow.decode_result(stored.output or "null"),)
        elif stored.status == "failed":
            error = failure_of(stored.error, self._error)
        return Ran(stored.status, error, stored, returned)

    def _live(self) -> None:
        """Run from a claim to the next sleep or to the end, as a new worker that has nothing in memory."""
        for waiting in (self._scheduled, self._due, self._calls, self._timers):
            waiting.clear()
        self._ports = MemoryPorts(self._memory, self._ports.worker + 1)
        self._left = False
        self._error = None
        depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(
            max(depth, ORIGIN_DEPTH)
        )  # so that a step that is never awaited is logged with its line
        claimed = self._memory.take(self._ports.worker, _ID)
        self._run = run = execute(claimed, watched(self._workflow, self._note), self)
        try:
            while not self._left and self._limit > 0:
                self._go_on()
            self._error = run.fatal or self._error
        finally:
            run.discard()
            sys.set_coroutine_origin_tracking_depth(depth)

    def _note(self, error: BaseException) -> None:
        self._error = error

    def _go_on(self) -> None:
        """Let the next thing happen: time passes only when nothing else can."""
        deadline = self._memory.runs[_ID].deadline
        if deadline is not None and deadline <= self._memory.now:
            self._pass_deadline()
        elif self._scheduled:
            run = self._scheduled.popleft()
            run.scheduled = False
            self._limit -= 1
            with stage():
                run.pump()
        elif self._due:
            self._limit -= 1
            self._due.popleft()()
        elif self._calls:
            self._perform(self._calls.popleft())
        else:
            timers = (timer for timer in self._timers if not timer.cancelled)
            timer = min(timers, key=lambda timer: timer.when, default=None)
            if deadline is not None and (timer is None or deadline <= timer.when):
                self._memory.now = deadline
                return
            assert timer is not None, "it waits for something"
            self._timers.remove(timer)
            self._memory.now = max(self._memory.now, timer.when)
            timer.callback()

    def _pass_deadline(self) -> None:
        """Cancel the workflow, in memory as it is."""
        self._memory.pass_deadlines()
        for news in self._memory.attend(self._ports.worker, {_ID: self._run.claimed.mailbox}):
            self._run.receive(news)

    def _perform(self, call: ActivityCall) -> None:
        if call.cancelled:
            return
        activity = call.activity
        output: str | None = None
        failure: BaseException | None = None
        try:
            args, kwargs = activity.decode_arguments(call.input)
            call.context.provide(self._resources)
            fake = self._fakes.get(activity.name)
            value = (fake or activity.code)(call.context, *args, **kwargs)
            if activity.is_async if fake is None else inspect.isawaitable(value):
                value = self._asyncio.run(awaited(value, activity))
            output = activity.encode_result(value, call.limit)
        except (Exception, SystemExit, GeneratorExit, asyncio.CancelledError) as error:
            failure = error
        call.caller.attempt_ended(output, failure)

    # Host

    def now(self) -> datetime:
        return self._memory.now

    def later(self, seconds: float) -> datetime:
        return self._memory.now + timedelta(seconds=seconds)

    def attempt_failed(self, activity: str, again: bool) -> None:
        """Nobody counts."""

    def observe_time(self, at: datetime) -> None:
        pass

    def schedule(self, run: Run) -> None:
        if not run.scheduled:
            run.scheduled = True
            self._scheduled.append(run)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(when, callback)
        self._timers.append(timer)
        return timer

    def start_activity(self, call: ActivityCall) -> None:
        self._calls.append(call)

    def publish(self, messages: Sequence[Message]) -> None:
        pass  # nobody subscribes; history holds them

    def asked(self) -> None:
        pass  # there are no others

    def keep(self, run: Run) -> bool:
        return False

    def finished(self, run: Run, outcome: Outcome | None) -> None:
        self._left = True

    # Journal, Loops and Crossings: whoever calls is answered later.

    def write(self, write: Write) -> None:
        self._ports.write(write)
        self._due.append(self._ports.commit)

    def advance(self, advance: Advance) -> None:
        self._ports.advance(advance)
        self._due.append(self._ports.forget)

    def cross(self, crossing: Crossing) -> None:
        command = crossing.command
        if not isinstance(command, Sending):
            raise PgflowError(
                f'pgflow.testing.run: the workflow "{self._workflow.name}" starts another one, "{command.name}", '
                "for which there is no database here. Test it with a worker on pgflow.embedded.Postgres."
            )
        self._due.append(lambda: self._send(crossing))

    def ask(self, inquiry: Inquiry) -> None:
        self._ports.ask(inquiry)
        self._due.append(self._ports.answer)

    def _send(self, crossing: Crossing) -> None:
        """Send a signal: to the workflow itself if it is the receiver, else to somebody who is taken to be there."""
        sent = self._memory.cross(self._ports.worker, crossing)
        assert isinstance(sent, Sent) and isinstance(crossing.command, Sending)
        if sent.receiver is None:
            sent = Sent(crossing.command.workflow_id or _RECEIVER, None, 0)
        crossing.on_done(crossing, sent)
        for news in self._memory.deliver(self._ports.worker).arrived:
            self._run.receive(news)
