"""How columns of the tables are written, and those that active and forgotten history have in common."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, DateTime, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSON, UUID
from sqlalchemy.types import TypeEngine

TIME = DateTime(timezone=True)
"""A moment."""


def column(
    name: str,
    kind: TypeEngine[Any],
    comment: str,
    *,
    key: bool = False,
    null: bool = True,
    default: str | None = None,
) -> Column[Any]:
    """A column with its comment; what is not null has a default or is always given."""
    return Column(
        name,
        kind,
        primary_key=key,
        nullable=null and not key,
        server_default=None if default is None else text(default),
        comment=comment,
        autoincrement=False,
    )


def history_columns() -> list[Column[Any]]:
    """The columns that active and forgotten history have in common."""
    return [
        column("workflow_id", UUID(), "The workflow whose step this is.", key=True),
        column(
            "location",
            Text(collation="C"),
            "Where the step stands, in stored form: it sorts in execution order. display_location() shows it.",
            key=True,
        ),
        column(
            "iteration",
            Integer(),
            "The turn of the innermost loop around the step, from 0; 0 outside loops.",
            null=False,
            default="0",
        ),
        column(
            "seq",
            Integer(),
            "The step's place in the order in which results were delivered to the code.",
        ),
        column(
            "version",
            Integer(),
            "The version of the context that called the step (ctx.v).",
            null=False,
            default="1",
        ),
        column(
            "kind",
            Text(),
            "activity, sleep, timeout, listen, signal_send, message_send, child_workflow, child_output, loop, branch, "
            "removed or version_check.",
            null=False,
        ),
        column(
            "name",
            Text(),
            "The name of the activity or workflow; empty for kinds without one.",
            null=False,
            default="''",
        ),
        column("status", Text(), "pending, completed, failed, cancelled or abandoned.", null=False),
        column(
            "attempts",
            Integer(),
            "Attempts of the activity that have ended.",
            null=False,
            default="0",
        ),
        column("created_at", TIME, "When the row was first written.", null=False, default="now()"),
        column(
            "completed_at",
            TIME,
            "When the step ended; null while it is pending, and for one that had ended when its row was first written: "
            "then it is created_at. The view history shows it always.",
        ),
        column("input", JSON(), "The arguments, by name."),
        column("output", JSON(), "The recorded result; of a pending activity, what its last heartbeat told."),
        column("error", JSON(), "The last error: its type, message and traceback."),
        column(
            "wake_at",
            TIME,
            "The deadline of a pending step: the end of a sleep, the next attempt.",
        ),
        column(
            "turn_state",
            JSON(),
            "On the first row of a loop's turn: the state that the turn started with.",
        ),
        column(
            "turn_now",
            TIME,
            "On the first row of a loop's turn: the time that the turn started with.",
        ),
        column("loop_progress", Integer(), "On a loop: how many of its turns have been forgotten."),
        column(
            "loop_state",
            JSON(),
            "On a loop: the state with which turn `loop_progress` starts. On an activity with a total_timeout: since "
            "when that counts.",
        ),
        column(
            "turn_seq",
            Integer(),
            "On the first row of a loop's turn: the place in the order of completion (seq) after which the turn "
            "started.",
        ),
        column("loop_seq", Integer(), "On a loop: the place after which turn `loop_progress` started."),
        column("encoding", Text(), "Reserved for payload codecs; null: plain JSON."),
    ]
