"""Steps that wait for signals: `ctx.listen` and `ctx.listen_many`.

    called -> a signal of its types waits in the mailbox? -- taken, with the step's row, in one transaction
                    | no                                 '-- its body does not fit: set aside; on to the next one
                    '--> parked: the workflow sleeps on its types; a signal that arrives is offered to the lowest
                    location

A signal is consumed in the transaction that records it, so it is taken exactly once whatever crashes. A signal that
does not fit is marked in the next transaction of the run: the code never sees it, so a replay that meets it before that
transaction sets it aside again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pgflow.codec import decode, described, message_of
from pgflow.errors import HistoryDiverged, SerializationError
from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.recorded_arguments import compare
from pgflow.execution.engine.step import Step
from pgflow.execution.event_loop.stage import offstage
from pgflow.execution.steps.sleep import park_until
from pgflow.history.events import KIND_LISTEN, STATUS_COMPLETED
from pgflow.history.location import display
from pgflow.model.moments import after
from pgflow.model.rows import Signal
from pgflow.observe.log_records import fields_of

log = logging.getLogger("pgflow.execution")

_PROBLEM_LIMIT = 2_000
"""The most characters kept of the reason why a body does not fit."""


class ListenStep(Step):
    """One listen.

    Args:
        types: the classes of the signals, by name.
        limit: the most signals it takes; None: one, and the result is that signal rather than a list.
        timeout: how long it waits before it ends without a signal; None: forever.
    """

    kind = KIND_LISTEN
    listens = True
    __slots__ = ("_limit", "_taken", "_timeout", "types")

    def __init__(
        self,
        scope: ScopeView,
        version: int,
        types: Mapping[str, type],
        limit: int | None,
        timeout: timedelta | None,
    ) -> None:
        self.types = types
        self._limit = limit
        self._timeout = timeout
        self._taken: list[Any] | None = None
        """What it has taken live, converted from the text that is recorded."""
        super().__init__(scope, ", ".join(types), version)
        asked: dict[str, Any] = {"signals": list(types)}
        if limit is not None:
            asked["limit"] = limit
        if timeout is not None:
            asked["timeout"] = timeout.total_seconds()
        text = self.input = json.dumps(asked, ensure_ascii=False, separators=(",", ":"))
        if self.event is not None:
            compare(self, lambda: text, _types)

    def start(self) -> None:
        if self.offer():
            return
        if self._timeout is None:
            self.scope.run.park(self, None)
            return
        recorded = self.event.wake_at if self.event is not None else None
        park_until(self, recorded or after(self.scope.run.host.now(), self._timeout))

    def offer(self) -> bool:
        """Take what the mailbox holds for this step; whether there was anything."""
        run = self.scope.run
        values: list[Any] = []

        def fits(signal: Signal) -> bool:
            try:
                values.append(self._signal(json.loads(_recorded(signal))))
            except (
                Exception,
                SystemExit,
                asyncio.CancelledError,
                GeneratorExit,
            ) as error:  # a class's own conversion may raise anything
                self._set_aside(signal, error)
                return False
            return True

        taken = run.mailbox.take(self.types, self._limit or 1, fits)
        if not taken:
            return False
        self._taken = values
        run.outgoing.consume([signal.id for signal in taken], self.location)
        texts = [_recorded(signal) for signal in taken]
        run.finish(self, STATUS_COMPLETED, texts[0] if self._limit is None else f"[{','.join(texts)}]")
        return True

    def _set_aside(self, signal: Signal, error: BaseException) -> None:
        """Set aside a signal that does not fit, for an operator to deal with: the code never sees it."""
        run = self.scope.run
        problem = message_of(error) if isinstance(error, SerializationError) else described(error)
        problem = problem[:_PROBLEM_LIMIT].rstrip(".")
        run.outgoing.set_aside(signal.id, _printable(problem))
        with offstage():  # it may be the run's own code that has called the step
            log.warning(
                '%s: the signal "%s" %s does not fit its type and was set aside at %s: %s. It is among '
                "`client.dead_signals()`; `client.redeliver(id, body=...)` delivers it anew, `client.drop(id)` gives "
                "it up.",
                run.label,
                signal.name,
                signal.id,
                display(self.location),
                problem,
                extra=fields_of(run.claimed, location=display(self.location)),
            )

    def due(self) -> None:
        if not self.offer():
            self.scope.run.finish(self, STATUS_COMPLETED, "null" if self._limit is None else "[]")

    @property
    def waits_for(self) -> Sequence[str]:
        """Names of the signals that end its wait."""
        return tuple(self.types)

    def result(self, status: str, output: str | None, error: str | None) -> Any:
        if self._taken is not None:
            taken, self._taken = self._taken, None
            return taken[0] if self._limit is None else taken
        found = decode(output or "null", what=f"what was taken at {display(self.location)}")
        if self._limit is None:
            if isinstance(found, list):
                found = found[0] if found else None
            return None if found is None else self._signal(found)
        if not isinstance(found, list):
            found = [] if found is None else [found]
        return [self._signal(one) for one in found]

    def _signal(self, recorded: dict[str, Any]) -> Any:
        name = recorded["name"]
        kind = self.types.get(name)
        if kind is None:
            where = display(self.location)
            self.scope.run.end_with(
                HistoryDiverged(
                    f"history diverged at {where}: the code listens for {', '.join(self.types)}, history holds a "
                    f'signal "{name}" '
                    "that was taken there. Listen for its type too, or decide with `ctx.check_version(n)`; then "
                    "retry the workflow.",
                    location=where,
                    expected=", ".join(self.types),
                    found=name,
                )
            )
        body = json.dumps(recorded["body"], ensure_ascii=False)
        return decode(body, kind, what=f'signal "{name}" taken at {display(self.location)}')


def _types(asked: str) -> set[str]:
    """What a listen waits for; how long, and for how many, may change."""
    return set(json.loads(asked)["signals"])


def _recorded(signal: Signal) -> str:
    """A signal as a listen's row holds it; its body stays the text that was sent."""
    name = json.dumps(signal.name, ensure_ascii=False)
    return f'{{"id":"{signal.id}","name":{name},"body":{signal.body}}}'


def _printable(text: str) -> str:
    """A text that every column of every database can hold, whatever its encoding."""
    text = "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)
    return text.encode("ascii", "backslashreplace").decode()
