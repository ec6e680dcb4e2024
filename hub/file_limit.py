"""How many files this process may have open: as many as the system allows, not the few that a shell starts with."""

from __future__ import annotations

import contextlib
import resource

ENOUGH = 65_536
"""More is never needed; some systems allow a billion, and some libraries go through them all."""


def raise_file_limit() -> int:
    """Raise the limit as far as this account may; the limit then. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return file_limit()
    with contextlib.suppress(ValueError, OSError):  # a sandbox may refuse; the program then works with what it has
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return file_limit()


def file_limit() -> int:
    """The limit now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if soft == resource.RLIM_INFINITY else min(soft, ENOUGH)
