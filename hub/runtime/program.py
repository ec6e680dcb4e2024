"""Startup of every program of the hub: standard streams, private files, ready file, file limit, garbage collector."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import resource
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

OTHERS_PERMISSIONS = 0o077
"""The permissions of group and others, which the hub's files do not grant."""
_users: list[int] = []


def begin() -> None:
    """Open descriptors 0 to 2 and set a private umask. Call it before any file is opened; calling it twice is harmless.

    A program that was started with closed standard streams would give their numbers to the next socket or file, which a child's
    own streams would then replace.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")
    before = os.umask(OTHERS_PERMISSIONS)
    if before != OTHERS_PERMISSIONS:
        _users.append(before)


def _stream(number: int, mode: str) -> TextIO:
    return io.TextIOWrapper(io.FileIO(number, mode, closefd=False), "utf-8", "replace", write_through=True)


@contextlib.contextmanager
def users_umask() -> Iterator[None]:
    """Create files with the user's own umask: for files that belong in git and hold no secret."""
    ours = os.umask(_users[-1]) if _users else os.umask(OTHERS_PERMISSIONS)
    if not _users:
        os.umask(ours)
    try:
        yield
    finally:
        os.umask(ours)


def keep_private(data: Path) -> None:
    """Remove other accounts' access to the hub's data, including files of older versions. Creates the folder if it is missing.

    Leaves a folder of another owner, or one that all may write to, and files that it cannot change.
    """
    data.mkdir(parents=True, exist_ok=True)
    folder = data.stat()
    if folder.st_uid != os.geteuid() or folder.st_mode & stat.S_ISVTX:
        return
    _tighten(data)
    for pattern in ("*", "run/*", "logs/*"):
        for path in data.glob(pattern):
            _tighten(path)


def open_to_others(data: Path) -> bool:
    """Whether other accounts have access to the folder."""
    return data.is_dir() and bool(data.stat().st_mode & OTHERS_PERMISSIONS)


def _tighten(path: Path) -> None:
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        if mode & OTHERS_PERMISSIONS and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~OTHERS_PERMISSIONS)


RETRY_DELAY_S = 1.0
"""Seconds until a ready file that could not be written is retried."""


def _ready_file(data: Path, program: str) -> Path:
    """The file that marks a program as ready: it holds its process id."""
    return data / "run" / f"{program}.ready"


def mark_ready(data: Path, program: str) -> None:
    """Called by the program itself once it is ready, so that `hub up` need not guess."""
    file = _ready_file(data, program)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(os.getpid()), "ascii")
    except OSError:
        # A full disk must not stop the program: retry until there is space.
        retry = threading.Timer(RETRY_DELAY_S, mark_ready, (data, program))
        retry.daemon = True
        retry.start()


def is_ready(data: Path, program: str, pid: int | None) -> bool:
    """Whether the process with this id has marked itself as ready."""
    try:
        return pid is not None and _ready_file(data, program).read_text("ascii") == str(pid)
    except FileNotFoundError:
        return False


MAX_OPEN_FILES = 65_536
"""The hub never needs more. Some systems allow a billion, and some libraries iterate over all of them."""


def raise_file_limit() -> int:
    """Raise the limit of open files as far as this account may, and return it. Child processes inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return file_limit()
    with contextlib.suppress(ValueError, OSError):  # a sandbox may refuse; the program then runs with the limit it has
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return file_limit()


def file_limit() -> int:
    """The current limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else min(soft, MAX_OPEN_FILES)


def tune_gc() -> None:
    """Run the cyclic garbage collector less often, and never on what is loaded now: that lives as long as the program.

    The hub's programs create many short-lived values and hardly any cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
