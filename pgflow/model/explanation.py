"""Why a workflow is where it is, in words: what the command `show`, the client and pages for people say of it.

Facts come from one statement (`store/sql/explain.sql`) and from the workflow's pending steps; nothing is asked here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pgflow.history.events import KIND_ACTIVITY, KIND_CHILD_OUTPUT, KIND_LISTEN, KIND_LOOP, KIND_SLEEP, KIND_TIMEOUT
from pgflow.model.info import HistoryEvent

SHOWN = 20
"""How many unread signals, children and steps are named, at most."""

_LONGEST_ERROR = 200
"""Characters of an error's message in a sentence."""


@dataclass(frozen=True, slots=True)
class UnreadSignal:
    """A signal in a workflow's mailbox that no listen has taken yet."""

    id: UUID
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """A child that has not ended."""

    id: UUID
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a workflow is where it is, as it stood when it was read.

    Attributes:
        status: as in `WorkflowInfo`.
        reasons: sentences for people; the first one says most. None for one that has ended.
        pending: the steps that have begun and not ended, in order of execution, 20 at most.
        mailbox: signals that no listen has taken, in their order, 20 at most.
        children: children that have not ended, 20 at most, of the first 1,000 that it has.
        more: which of `pending`, `mailbox` and `children` are longer than what is shown.
    """

    id: UUID
    status: str
    reasons: list[str]
    pending: list[HistoryEvent]
    mailbox: list[UnreadSignal]
    children: list[ChildInfo]
    more: list[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database knows of a workflow that may wait.

    Args:
        now: the database's time.
        last_step: of one that runs: what stands last in its history.
        servers: living workers that serve its queue; None: it is not to be claimed.
        knowing: those of them that know its name, or do not say what they know.
        awaited: the status of each child whose output a pending step waits for; one that is missing is not there.
        dead: signals that were set aside.
    """

    now: datetime
    status: str
    name: str
    queue: str | None
    wake_at: datetime | None
    epoch: int
    pause_requested: bool
    cancel_requested: bool
    fork_before: str | None
    suspicions: int
    deadline: datetime | None
    timed_out: float | None
    worker_id: int | None
    host: str | None
    pid: int | None
    heartbeat_at: datetime | None
    expires_at: datetime | None
    last_step: str | None
    servers: int | None
    knowing: int | None
    mailbox: Sequence[UnreadSignal] = ()
    dead: int = 0
    children: Sequence[ChildInfo] = ()
    awaited: Mapping[UUID, str] = field(default_factory=dict)


def explanation(id: UUID, facts: Facts, pending: Sequence[HistoryEvent]) -> Explanation:
    """What is shown of it; each list is cut to what is shown."""
    lists = {"pending": pending, "mailbox": facts.mailbox, "children": facts.children}
    return Explanation(
        id,
        facts.status,
        list(_reasons(facts, pending)),
        list(pending[:SHOWN]),
        list(facts.mailbox[:SHOWN]),
        list(facts.children[:SHOWN]),
        [name for name, found in lists.items() if len(found) > SHOWN],
    )


def awaited_children(pending: Sequence[HistoryEvent]) -> list[UUID]:
    """The children whose output these steps wait for."""
    return [id for event in pending if event.kind == KIND_CHILD_OUTPUT and (id := _child_of(event)) is not None]


def _reasons(facts: Facts, pending: Sequence[HistoryEvent]) -> Iterator[str]:
    if facts.status in ("completed", "cancelled"):
        return
    yield from _of_the_run(facts)
    if facts.status == "failed":
        return
    if facts.deadline is not None:
        yield f"The deadline of the whole workflow is {_moment(facts.deadline, facts)}: it is cancelled then."
    elif facts.timed_out is not None:
        yield "Its deadline has passed, and it was cancelled for that: it fails when that leaves its code."
    if facts.cancel_requested:
        yield "It was asked to cancel: its code is told when it runs next, and may compensate first."
    for event in pending[:SHOWN]:
        if (said := _of_a_step(event, facts)) is not None:
            yield said
    if len(pending) > SHOWN:
        yield f"More than {SHOWN} steps are pending; `pgflow workflow history` lists all."
    yield from _of_the_mailbox(facts, pending)
    if facts.suspicions:
        yield (
            f"{_counted(facts.suspicions, 'process')} died while holding it, and it has recorded no progress since: it "
            "is tried with few others beside it."
        )


def _of_the_run(facts: Facts) -> Iterator[str]:
    due = facts.wake_at is not None and facts.wake_at <= facts.now
    if facts.status == "failed":
        yield (
            "It failed: `pgflow workflow retry` runs it again from the step that failed."
            if facts.fork_before is None
            else "It failed after its code had gone on from the failure, so it cannot be retried: "
            f"`pgflow workflow fork --before '{facts.fork_before}'` runs it again under another id."
        )
    elif facts.status == "paused":
        yield "It is paused: `pgflow workflow resume` lets it go on."
    elif facts.status == "running":
        yield _of_the_worker(facts)
        if facts.expires_at is not None and facts.expires_at > facts.now:
            last = facts.last_step
            so_far = "Its history is empty so far" if last is None else f"The last step in its history is {last}"
            yield f"{so_far}: what runs for the first time is recorded when it ends."
        if facts.pause_requested:
            yield "It was asked to pause: it will be paused when its running activities have ended."
    elif due and not facts.servers:
        yield (
            f"It is due since {_moment(facts.wake_at, facts)}, but no living worker serves the queue {facts.queue!r}: "
            f"start one with `pgflow worker --queue {facts.queue}`."
        )
    elif due and not facts.knowing:
        yield (
            f"It is due since {_moment(facts.wake_at, facts)}, but no living worker of the queue {facts.queue!r} knows "
            f"the workflow {facts.name!r}: deploy its code (`pgflow workers` shows who is there)."
        )
    elif due:
        yield (
            f"It is due since {_moment(facts.wake_at, facts)}: {_counted(facts.knowing or 0, 'living worker')} "
            f"of the queue {facts.queue!r} may take it as soon as there is room."
        )
    elif facts.epoch == 0 and facts.wake_at is not None and facts.wake_at.year < _NEVER:
        yield f"It was dispatched for a later moment: {_moment(facts.wake_at, facts)}."


_NEVER = 9999
"""`wake_at` may be infinity, which is read as the last year that there is."""


def _of_the_worker(facts: Facts) -> str:
    if facts.expires_at is None:
        return f"Worker {facts.worker_id}, which held it, is gone: another takes it over within seconds."
    where = f"Worker {facts.worker_id} ({facts.host}, process {facts.pid})"
    if facts.expires_at <= facts.now:
        return (
            f"{where}, which held it, has not been heard of since {_moment(facts.heartbeat_at, facts)}: another "
            "takes it over as soon as one of its queue is there."
        )
    return f"{where} runs it."


def _of_a_step(event: HistoryEvent, facts: Facts) -> str | None:
    if event.kind == KIND_SLEEP:
        return f"It sleeps at {event.location} until {_moment(event.wake_at, facts)}."
    if event.kind == KIND_TIMEOUT:
        return f"The deadline at {event.location} passes at {_moment(event.wake_at, facts)}."
    if event.kind == KIND_ACTIVITY:
        return _of_an_activity(event, facts)
    if event.kind == KIND_LISTEN:
        until = "" if event.wake_at is None else f", until {_moment(event.wake_at, facts)}"
        return f"It waits at {event.location} for a signal of type {' or '.join(_signals_of(event)) or '?'}{until}."
    if event.kind == KIND_CHILD_OUTPUT:
        id = _child_of(event)
        status = None if id is None else facts.awaited.get(id)
        which = f"its child {event.name!r} {id}"
        return f"It waits at {event.location} for {which}, " + (
            f"which is {status}." if status is not None else "which is not there any more."
        )
    # A loop is pending for as long as it turns; its steps say what it waits for.
    return None if event.kind == KIND_LOOP else f"The step {event.kind} at {event.location} has not ended."


def _of_an_activity(event: HistoryEvent, facts: Facts) -> str:
    which = f"The activity {event.name!r} at {event.location}"
    failed = ""
    if event.error is not None:
        message = str(event.error.get("message") or "")
        message = message if len(message) <= _LONGEST_ERROR else message[:_LONGEST_ERROR] + " ..."
        failed = f"; the last one failed with {event.error.get('type')}: {message}"
    attempt = f"attempt {event.attempts + 1}"
    if event.wake_at is not None and event.wake_at > facts.now:
        return f"{which}: {attempt} is due at {_moment(event.wake_at, facts)}{failed}."
    if facts.status == "running":
        return f"{which} is running or about to: {attempt}, since {_moment(event.created_at, facts)}{failed}."
    return f"{which}: {attempt} begins when a worker takes the workflow{failed}."


def _of_the_mailbox(facts: Facts, pending: Sequence[HistoryEvent]) -> Iterator[str]:
    if facts.mailbox:
        wanted = {name for event in pending if event.kind == KIND_LISTEN for name in _signals_of(event)}
        counts = Counter(signal.name for signal in facts.mailbox[:SHOWN])
        held = ", ".join(f"{count} {name}" for name, count in counts.items())
        more = " and more" if len(facts.mailbox) > SHOWN else ""
        none = "; it listens for none of these types" if wanted and not wanted & counts.keys() and not more else ""
        yield f"Unread in its mailbox: {held}{more}{none}."
    if facts.dead:
        many = f"more than {SHOWN}" if facts.dead > SHOWN else str(facts.dead)
        yield (
            f"Signals set aside, since their bodies do not fit their types: {many}; `pgflow signal list --dead` says "
            "why, `pgflow signal redeliver` delivers one again."
        )


def _signals_of(event: HistoryEvent) -> list[str]:
    names = event.input.get("signals") if isinstance(event.input, dict) else None
    return [str(name) for name in names] if isinstance(names, list) else [event.name] if event.name else []


def _child_of(event: HistoryEvent) -> UUID | None:
    found: Any = event.input.get("id") if isinstance(event.input, dict) else None
    try:
        return UUID(found)
    except (TypeError, ValueError, AttributeError):
        return None  # written by hand


def _moment(at: datetime | None, facts: Facts) -> str:
    if at is None or at.year >= _NEVER:
        return "no moment that is set"
    text = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    away = at - facts.now
    return f"{text} (in {_span(away)})" if away > timedelta() else f"{text} ({_span(-away)} ago)"


def _span(time: timedelta) -> str:
    """A duration in its two largest units: 3 d 4 h, 5 min 7 s."""
    seconds = int(time.total_seconds())
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def _counted(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"
