"""A program may have as many files open as its system allows."""

from __future__ import annotations

import subprocess
import sys

import pytest

TOLD = """
import resource
from hub.runtime.program import MAX_OPEN_FILES, file_limit, raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (100, {hard}))
print(file_limit(), raise_file_limit(), file_limit(), raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize("hard", [100, 1024])
def test_the_limit_is_raised_to_what_is_allowed_and_no_further(hard: int) -> None:
    told = subprocess.run([sys.executable, "-c", TOLD.format(hard=hard)], capture_output=True, check=True, text=True)
    assert told.stdout.split() == [str(each) for each in (100, hard, hard, hard, hard, hard)]


def test_connections_leave_files_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from hub.web import connections

    found = {}
    for limit in (64, 1024, 4096, 65_536):
        monkeypatch.setattr(connections, "file_limit", lambda limit=limit: limit)
        found[limit] = connections.max_connections()
    assert found == {64: 16, 1024: 384, 4096: 1920, 65_536: 2000}
