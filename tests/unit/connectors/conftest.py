"""A ledger for each test, on either of its databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.ledger.ledger import Ledger
from tests.postgres_fixture import NewDatabase


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.systems)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger: a file, or a database of a real PostgreSQL."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        new: NewDatabase = request.getfixturevalue("postgres")
        url = new()
    opened = Ledger(url)
    yield opened
    opened.close()
