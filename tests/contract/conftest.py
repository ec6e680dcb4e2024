"""An empty database of either kind, for what must be the same on both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgres_fixture import NewDatabase


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.systems)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: a file, or one of a real PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.sqlite"
    new_database: NewDatabase = request.getfixturevalue("postgres")
    return new_database()
