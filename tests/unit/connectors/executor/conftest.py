"""An executor's surroundings, new for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.executor_bench import Bench, open_ledger


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A ledger and a log of the test's own."""
    ledger = open_ledger(tmp_path)
    yield Bench(ledger, tmp_path)
    ledger.close()
