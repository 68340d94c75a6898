"""Log records about workflows: their fields, and the lines that a failure leaves.

An exception of the application may be anything: endless chains, a `str()` that raises. So its traceback goes into the
record as the bounded text that is stored with the failure, and no handler formats the exception itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from traceback import print_exc
from typing import Any, Protocol
from uuid import UUID

from pgflow.codec import decode_error

_activities = logging.getLogger("pgflow.activity")
_workflows = logging.getLogger("pgflow.workflow")

_SHOWN = 300
"""Characters of an error's message in the line itself; the traceback below has more of it."""

Fields = dict[str, object]


class Subject(Protocol):
    """The workflow that a record is about. `Claimed` says what each of these is."""

    @property
    def workflow_id(self) -> UUID: ...
    @property
    def name(self) -> str: ...


def fields_of(subject: Subject, **more: object) -> Fields:
    """The fields of a record about a workflow, for `extra=`.

    Example:
        log.warning("%s left this worker", run.label, extra=fields_of(run.claimed))
    """
    return {"workflow_id": str(subject.workflow_id), "workflow": subject.name, **more}


def logger_of(fn: Callable[..., Any] | None) -> logging.Logger:
    """The logger of the module that defines a function; `pgflow` where that is not known."""
    module = getattr(fn, "__module__", None)
    return logging.getLogger(module if isinstance(module, str) and module else "pgflow")


def log_failed_attempt(fields: Fields, error: str, of: int | None, due: str | None) -> None:
    """One WARNING: an attempt of an activity has failed.

    Args:
        fields: those of the record, with `location`, `activity` and `attempt`.
        error: as it is stored with the step.
        of: how many attempts there are at most; None: there is no bound.
        due: when the next one is due, as shown; None: this was the last.
    """
    if not _activities.isEnabledFor(logging.WARNING):
        return
    stored = decode_error(error)
    attempt = f"attempt {fields['attempt']}" if of is None else f"attempt {fields['attempt']} of {of}"
    then = "there is no further attempt" if due is None else f"the next is due {due}"
    _emit(
        _activities,
        logging.WARNING,
        f'{attempt} of activity "{fields["activity"]}" at {fields["location"]} of workflow "{fields["workflow"]}" '
        f"{fields['workflow_id']} failed, {then}: {_in_short(stored)}",
        stored.get("traceback"),
        fields,
    )


def log_failed_workflow(subject: Subject, error: str) -> None:
    """One ERROR: a workflow has failed, and its failure is committed.

    Args:
        error: as it is stored with the workflow.
    """
    if not _workflows.isEnabledFor(logging.ERROR):
        return
    stored = decode_error(error)
    _emit(
        _workflows,
        logging.ERROR,
        f'workflow "{subject.name}" {subject.workflow_id} failed: {_in_short(stored)}',
        stored.get("traceback"),
        fields_of(subject),
    )


def _in_short(stored: dict[str, Any]) -> str:
    message = str(stored.get("message"))
    return f"{stored.get('type')}: {message if len(message) <= _SHOWN else message[:_SHOWN] + ' ...'}"


def _emit(logger: logging.Logger, level: int, message: str, traceback: Any, fields: Fields) -> None:
    record = logger.makeRecord(logger.name, level, __file__, 0, message, (), None, extra=fields)
    if isinstance(traceback, str) and traceback:
        record.exc_text = traceback.rstrip()
    try:
        logger.handle(record)
    except Exception:  # of a filter of the application's: it must not become a failure of the engine
        if logging.raiseExceptions:
            print_exc()


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """`ctx.logger`: adds what the record is about, and is silent while `silent` says so.

    Args:
        logger: that of the module whose code logs.
        fields: those of every record; fields of one call (`extra=`) are added to them.
        silent: whether the code is being replayed; None: it never is.
    """

    extra: Fields

    def __init__(self, logger: logging.Logger, fields: Fields, silent: Callable[[], bool] | None = None) -> None:
        super().__init__(logger, fields)
        self._silent = silent

    def isEnabledFor(self, level: int) -> bool:
        """Whether a record of this level would be handled now."""
        return (self._silent is None or not self._silent()) and self.logger.isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The message as it is; the fields of the call beside those of the context."""
        kwargs["extra"] = {**self.extra, **(kwargs.get("extra") or {})}
        return msg, kwargs
