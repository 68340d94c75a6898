"""The exception that leaves a workflow's code, as it is: the engine records only its class and its message."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any
from uuid import UUID

from pgflow.codec import decode_error
from pgflow.definitions.descriptors import Workflow
from pgflow.errors import PgflowError, SerializationError, WorkflowTimeout


def watched(workflow: Workflow[Any, Any], note: Callable[[BaseException], None]) -> Workflow[Any, Any]:
    """The same workflow, which calls `note` with what leaves its code."""
    fn = workflow.fn

    @functools.wraps(fn)
    async def watching(*args: Any, **kwargs: Any) -> Any:
        try:
            return await fn(*args, **kwargs)
        except BaseException as error:
            note(error)
            raise

    return dataclasses.replace(workflow, fn=watching)


def seconds_of(error: str | None) -> float | None:
    """The seconds that a workflow had, if it has failed by its deadline."""
    return decode_error(error or "{}").get("timeout")


def failure_of(error: str | None, raised: BaseException | None) -> BaseException:
    """What a failed workflow ended with: what its code raised, unless the engine has made something else of it."""
    return recorded_error(error) if raised is None or seconds_of(error) is not None else raised


def recorded_error(error: str | None) -> PgflowError:
    """The exception for a recorded failure that no code has raised, such as an input that does not fit."""
    found = decode_error(error or "{}")
    if found.get("type") == SerializationError.__name__:
        return SerializationError(str(found.get("message")))
    if "timeout" in found:
        message = str(found.get("message"))
        return WorkflowTimeout(message, workflow_id=UUID(int=0), error_type="WorkflowTimeout", error_message=message)
    return PgflowError(f"{found.get('type')}: {found.get('message')}")
