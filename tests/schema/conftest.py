"""Fixtures of the schema's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import databases


@pytest.fixture(params=["as given", "15"])
def any_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database, once on the server of the other tests and once on the oldest that is supported."""
    server = request.getfixturevalue("server_dsn" if request.param == "as given" else "pg15_dsn")
    with databases.database(server) as dsn:
        yield dsn
