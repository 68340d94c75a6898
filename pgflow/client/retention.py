"""How long ended workflows are kept: `client.retention`."""

from __future__ import annotations

import builtins
from datetime import timedelta
from typing import Literal

from pgflow.client.core import Core, HasCore
from pgflow.definitions.retry import kept_for
from pgflow.model.info import RetentionRule
from pgflow.store.queries import retention_rules


class Retention:
    """What a client does about how long ended workflows are kept.

    Off until something is set, or declared by code: `@pgflow.workflow(keep=...)`. What an operator has set for a name
    holds; else what its code declares; else what an operator has set for `*`.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def set(
        self,
        name: str,
        *,
        keep: timedelta | float | Literal["forever"] | None = None,
        failed: timedelta | float | Literal["forever"] | None = None,
        missing_ok: bool = False,
        reason: str | None = None,
    ) -> None:
        """Say how long workflows of a name are kept once they have ended; workers remove them then.

        What is not given stays as it is. Failed ones stay for ever unless `failed` says otherwise.

        Args:
            name: the workflows' name; `*`: all that have nothing of their own.
            keep: how long after they have completed or were cancelled, in seconds if a number, or "forever".
            failed: likewise after they have failed.
            missing_ok: whether the name may be one of which no workflow was ever dispatched.
            reason: why, for the table `audit`: at most 2,000 characters.

        Raises:
            ValueError: neither is given, or one that is not above 0.
            PgflowError: no workflow of that name was ever dispatched, and no code has declared anything for it: it may
                be misspelled. Nothing was changed.

        Example:
            await client.retention.set("newsletter", keep=timedelta(days=30), failed=timedelta(days=365))
        """
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"name={name!r}: expected the name of a workflow, or *")
        if keep is None and failed is None:
            raise ValueError("retention.set: expected keep, failed, or both; reset takes back what was set")
        kept = None if keep is None else kept_for(keep, "keep")
        failures = None if failed is None else kept_for(failed, "failed")
        note = self._core.audit_note(reason)
        await self._core.operate(
            retention_rules.set_retention(self._core.schema, name, kept, failures, bool(missing_ok), note)
        )

    async def reset(self, name: str, *, reason: str | None = None) -> bool:
        """Take back what was set for a name: what its code declares holds again, else what is set for `*`.

        Args:
            reason: why, for the table `audit`: at most 2,000 characters.

        Returns:
            False when nothing was set for it.

        Example:
            await client.retention.reset("newsletter")
        """
        return await self._core.operate(
            retention_rules.reset_retention(self._core.schema, name, self._core.audit_note(reason))
        )

    async def list(self) -> builtins.list[RetentionRule]:
        """All that is set, and what code declares, by name.

        Example:
            for rule in await client.retention.list():
                print(rule.name, rule.keep, rule.failed, rule.set_by)
        """
        return await self._core.execute(retention_rules.rules(self._core.schema))


class Retains(HasCore):
    """The part of a client that leads to it."""

    @property
    def retention(self) -> Retention:
        """How long ended workflows are kept.

        Example:
            await client.retention.set("*", keep=timedelta(days=90))
        """
        return Retention(self._core)
