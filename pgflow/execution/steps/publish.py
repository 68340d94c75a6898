"""The step that sends a message: `ctx.publish`.

The message is sent once the step's row is committed, so subscribers never see what a crash has undone. A crash right
after the commit loses it; a replay finds the row and does not send it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pgflow.codec import decode, encode
from pgflow.definitions.tags import tags_text
from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.recorded_arguments import body_of, compare
from pgflow.execution.engine.step import Step
from pgflow.history.events import KIND_MESSAGE_SEND, STATUS_COMPLETED
from pgflow.model.rows import Message

TAGS_LIMIT = 4_096
"""The most bytes of JSON in a message's tags, which have to fit into a notification."""


class PublishStep(Step):
    """One message.

    Args:
        name: the message's name, which history records as the step's name.
        message: its body.
        tags: what subscribers choose by.
    """

    kind = KIND_MESSAGE_SEND
    __slots__ = ("_message",)

    def __init__(self, scope: ScopeView, version: int, name: str, message: Any, tags: Mapping[str, Any] | None) -> None:
        self._message: Message | None = None
        # What cannot be sent must not use up a location; a replayed step does not need it at all.
        if not scope.holds_end_of(self.kind, name, version):
            self._message = _encoded(scope, name, message, tags)
        super().__init__(scope, name, version)
        if self._message is not None:
            self.input = _described(self._message)
        if self.event is not None:
            compare(
                self,
                lambda: _described(self._message or _encoded(scope, name, message, tags)),
                body_of(type(message), decode),
            )

    def start(self) -> None:
        assert self._message is not None
        run = self.scope.run
        run.outgoing.send(self._message)
        run.finish(self, STATUS_COMPLETED)


def _described(message: Message) -> str:
    return f'{{"tags":{message.tags},"body":{message.body}}}'


def _encoded(scope: ScopeView, name: str, message: Any, tags: Mapping[str, Any] | None) -> Message:
    run = scope.run
    body = encode(message, type(message), what=f'message "{name}"', limit=run.limits.payload)
    return Message(run.claimed.workflow_id, name, tags_text(tags, TAGS_LIMIT), body)
