"""The real Redmine that tests marked `systems` may use."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systems.redmine_server import RedmineServer


@pytest.fixture(scope="session")
def redmine() -> Iterator[RedmineServer]:
    """One real Redmine for the whole session; its tests share it, so each makes a project of its own."""
    # Not pytest's own folder: Redmine's user could not enter that one.
    with tempfile.TemporaryDirectory(prefix="baton-redmine-") as folder:
        root = Path(folder)
        server = RedmineServer(root)
        server.start()
        yield server
        server.stop()
