"""A real PostgreSQL for tests: started once for the session, with a database for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.postgres_server import running_server

NewDatabase = Callable[[], str]
"""Makes an empty database; its SQLAlchemy URL."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[NewDatabase]:
    """Call it for an empty database."""
    with running_server() as server:
        yield server.database
