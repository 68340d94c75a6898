"""The history of a simulated workflow, as an export would hold it."""

from __future__ import annotations

from pgflow.history.stored import StoredHistory
from tests.execution.simulator import EPOCH, World


def stored(world: World) -> StoredHistory:
    """What the database would give now."""
    return StoredHistory(
        id=world.id,
        name=world.workflow.name,
        status=world.status,
        input=world.input,
        tags={},
        seed=world.id,
        created_at=EPOCH,
        parent_id=None,
        output=world.output,
        error=world.error,
        now=world.now,
        events=[world.events[key] for key in sorted(world.events)],
    )
