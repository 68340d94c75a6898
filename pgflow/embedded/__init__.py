"""A PostgreSQL that needs no installation: for `make demo`, the tests and trying things out.

It is a real server of the binaries that the `embedded` extra installs, reached over a private socket, and it ends with
the process that started it. Production needs none of this, and installs none of it.

    with pgflow.embedded.Postgres("data") as server:
        pgflow.migrate(server.dsn)
"""

from pgflow.embedded.binaries import BinariesMissing
from pgflow.embedded.server import EmbeddedError, Postgres

__all__ = ["BinariesMissing", "EmbeddedError", "Postgres"]
