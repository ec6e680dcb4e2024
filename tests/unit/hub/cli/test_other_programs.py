"""Programs that are asked in JSON lines, and one that cannot answer."""

from __future__ import annotations

import pytest

from hub.cli import other_programs
from hub.errors import FatalError


def test_a_program_that_dies_is_told_with_its_last_words() -> None:
    with pytest.raises(FatalError) as raised:
        list(other_programs.ask("hub.no_such_program", []))
    assert raised.value.code == "HUB-E1020"
    assert "No module named" in raised.value.seen["last"]
