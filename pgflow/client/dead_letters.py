"""Signals that no workflow could read: the part of the client that lists them, delivers them again or drops them."""

from __future__ import annotations

import builtins
from typing import Any
from uuid import UUID

from pgflow.client.core import HasCore
from pgflow.client.filters import DeadFilter, fields_of
from pgflow.definitions.options import uuid_of
from pgflow.model.info import DeadSignal
from pgflow.store.queries import dead_signals


class DeadLetters(HasCore):
    """The methods of a client for signals that were set aside because their bodies do not fit the type that was
    listened for.
    """

    async def dead_signals(
        self,
        workflow_id: UUID | str | None = None,
        name: str | None = None,
        limit: int = 100,
        *,
        after: UUID | str | None = None,
    ) -> builtins.list[DeadSignal]:
        """Signals that were set aside, by their ids.

        Args:
            workflow_id: Only those that were sent to this workflow.
            name: Only those of this type.
            limit: How many, at most.
            after: Only those with a larger id (give the last one's to go on with a list).

        Raises:
            ValueError: An id that is none, a limit below 0.

        Example:
            for signal in await client.dead_signals(name="deposit"):
                print(signal.id, signal.body, signal.problem)
        """
        asked = DeadFilter(workflow_id, name, limit, after)
        return await self._core.read(asked.query(self._core.schema))

    async def redeliver(self, signal_id: UUID | str, body: Any = None, *, reason: str | None = None) -> UUID:
        """Deliver a signal that was set aside again, at the end of the mailbox.

        Args:
            signal_id: Its id, which it keeps.
            body: What it says instead: an instance of its class, or a mapping of its fields. None: the same again, for
                code that has learned to read it.
            reason: Why, for the table `audit`: at most 2,000 characters.

        Raises:
            WorkflowNotFound: There is no such signal.
            PgflowError: It is not set aside, or its receiver has ended.
            TypeError: The body is neither a signal nor a mapping.
            SerializationError: The body cannot be stored, or is too large.

        Example:
            await client.redeliver(signal.id, Deposit(cents=700))
        """
        text = None if body is None else fields_of(body, self._core.payload_limit)
        hints, note = self._core.connections.hints, self._core.audit_note(reason)
        return await self._core.execute(
            dead_signals.redeliver(self._core.schema, uuid_of(signal_id), text, self._core.payload_limit, hints, note)
        )

    async def drop(self, signal_id: UUID | str, *, reason: str | None = None) -> UUID:
        """Drop a signal that was set aside. As long as it is retained, its id is not accepted again.

        Args:
            signal_id: Its id.
            reason: Why, for the table `audit`: at most 2,000 characters.

        Raises:
            WorkflowNotFound: There is no such signal.
            PgflowError: It is not set aside.

        Example:
            await client.drop(signal.id)
        """
        return await self._core.execute(
            dead_signals.drop(self._core.schema, uuid_of(signal_id), self._core.audit_note(reason))
        )
