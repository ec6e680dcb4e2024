"""What every program does with its home before it runs, and how it reports an error that ends it."""

from __future__ import annotations

import sys
from pathlib import Path

from hub.errors import HubError
from hub.home import Home
from hub.runtime.logs import configure
from hub.runtime.program import keep_private


def open_home(program: str, path: Path) -> Home:
    """Load the home, log under the program's name without the home's secrets, and make its data private.

    Raises HubError for a home that cannot be loaded.
    """
    home = Home.load(path)
    configure(program, home.secrets)
    keep_private(home.data)
    return home


def report_error(error: HubError) -> int:
    """Write the error and its fix to stderr, one line each; returns the exit code."""
    sys.stderr.write(f"{error.code} {error.message()}\n  → {error.fix()}\n")
    return 1
