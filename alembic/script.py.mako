"""${message}

Revision: ${up_revision}, after ${down_revision | comma,n}.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Tables as this version has them; `schema_info` says which code goes with it."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """As before."""
    ${downgrades if downgrades else "pass"}
