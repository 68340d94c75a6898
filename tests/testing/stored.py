"""The history of a simulated workflow, as an export would hold it."""

from __future__ import annotations

from pgflow.history.stored import StoredHistory
from tests.execution.simulator import World


def stored(world: World) -> StoredHistory:
    """What the database would give now."""
    return world.store.stored(world.id)
