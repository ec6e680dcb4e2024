"""A real PostgreSQL for tests: started once for the session, with a database for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.postgres_server import PostgresServer

NewDatabase = Callable[[], str]
"""Makes an empty database; its SQLAlchemy URL."""


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDatabase]:
    """Call it for an empty database."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    server.start()
    try:
        yield server.database
    finally:
        server.stop()
