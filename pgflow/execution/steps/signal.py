"""The step that sends a signal to another workflow: `ctx.signal`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pgflow.codec import decode, decode_error, encode_error
from pgflow.definitions.calls import sending_of, sent_of
from pgflow.definitions.descriptors import Workflow
from pgflow.definitions.packets import signal_name
from pgflow.errors import PgflowError, WorkflowNotFound
from pgflow.execution.engine.crossings import CrossingStep
from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.recorded_arguments import body_of, compare
from pgflow.history.events import KIND_SIGNAL_SEND, STATUS_COMPLETED, STATUS_FAILED
from pgflow.model.commands import Sending, Sent


class SignalStep(CrossingStep):
    """One signal to another workflow.

    Args:
        body: an instance of a class declared by `@pgflow.signal`.
        to: the receiver's id, or None with
        workflow, tags: whose oldest live workflow receives it.
        missing_ok: whether the signal may have no receiver.
    """

    kind = KIND_SIGNAL_SEND
    __slots__ = ("_missing_ok", "_sending")

    def __init__(
        self,
        scope: ScopeView,
        version: int,
        body: Any,
        to: UUID | str | None,
        workflow: Workflow[Any, Any] | str | None,
        tags: Mapping[str, Any] | None,
        missing_ok: bool,
    ) -> None:
        name = signal_name(type(body), "ctx.signal")
        # What does not fit must not use up a location.
        self._sending = sending_of(UUID(int=0), body, to, workflow, tags, scope.run.limits.payload)
        self._missing_ok = missing_ok
        super().__init__(scope, name, version)
        text = self.input = _described(self._sending)
        if self.event is not None:
            compare(self, lambda: text, body_of(type(body), decode))

    def command(self, id: UUID) -> Sending:
        self._sending = self._sending._replace(id=id)
        return self._sending

    def answered(self, answer: Sent) -> None:
        run = self.scope.run
        try:
            id = sent_of(self._sending, answer, self._missing_ok)
        except WorkflowNotFound as error:
            run.finish(self, STATUS_FAILED, error=encode_error(error))
            return
        sent = None if id is None else {"id": str(id), "to": str(answer.receiver)}
        run.finish(self, STATUS_COMPLETED, json.dumps(sent, separators=(",", ":")))

    def result(self, status: str, output: str | None, error: str | None) -> UUID | None:
        if status == STATUS_FAILED:
            recorded = decode_error(error or "{}")
            kind = WorkflowNotFound if recorded.get("type") == WorkflowNotFound.__name__ else PgflowError
            raise kind(str(recorded.get("message")))
        sent = json.loads(output or "null")
        return None if sent is None else UUID(sent["id"])


def _described(sending: Sending) -> str:
    """What history says of a signal: to whom, and its body as it is sent."""
    if sending.workflow_id is not None:
        to = f'"to":"{sending.workflow_id}"'
    else:
        to = f'"workflow":{json.dumps(sending.workflow_name, ensure_ascii=False)},"tags":{sending.tags}'
    return f'{{{to},"body":{sending.body}}}'
