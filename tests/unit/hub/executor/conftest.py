"""An executor's surroundings, new for each test."""

from __future__ import annotations

import pytest

from hub.ledger.ledger import Ledger
from tests.executor_bench import Bench


@pytest.fixture
def bench(ledger: Ledger) -> Bench:
    """A ledger and a log of the test's own."""
    return Bench(ledger)
