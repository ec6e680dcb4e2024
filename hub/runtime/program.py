"""Python's search for garbage in cycles, set for programs that make many values an instant and hardly a cycle among them.

What every program of the hub does first: open descriptors 0 to 2, and make files that nobody but their owner can read.

How a program of the hub says that it is ready, so that `hub up` need not guess.

How many files this process may have open: as many as the system allows, not the few that a shell starts with.
"""

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

PRIVATE = 0o077
"""What is taken from everybody but the owner."""
_users: list[int] = []


def begin() -> None:
    """Call it before anything is opened. What is called twice is the same.

    A program that was started with its standard streams closed would give their numbers to the next socket or file; a child's
    own streams then take their place there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")
    before = os.umask(PRIVATE)
    if before != PRIVATE:
        _users.append(before)


def _stream(number: int, mode: str) -> TextIO:
    return io.TextIOWrapper(io.FileIO(number, mode, closefd=False), "utf-8", "replace", write_through=True)


@contextlib.contextmanager
def users_umask() -> Iterator[None]:
    """Make files as the user's other programs do: for what is meant to be kept in git and shared, and is no secret."""
    ours = os.umask(_users[-1]) if _users else os.umask(PRIVATE)
    if not _users:
        os.umask(ours)
    try:
        yield
    finally:
        os.umask(ours)


def keep_private(data: Path) -> None:
    """Take the hub's data from everybody but their owner: what older versions made, too. The folder is made if it is not there.

    A folder that is another's, or that all may write to, is left as it is; what cannot be changed is, too.
    """
    data.mkdir(parents=True, exist_ok=True)
    known = data.stat()
    if known.st_uid != os.geteuid() or known.st_mode & stat.S_ISVTX:
        return
    _tighten(data)
    for pattern in ("*", "run/*", "logs/*"):
        for path in data.glob(pattern):
            _tighten(path)


def open_to_others(data: Path) -> bool:
    """Whether other accounts may look into the folder."""
    return data.is_dir() and bool(data.stat().st_mode & PRIVATE)


def _tighten(path: Path) -> None:
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        if mode & PRIVATE and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~PRIVATE)


AGAIN = 1.0
"""Seconds until a note that could not be written is tried again."""


def _note(data: Path, program: str) -> Path:
    """The file by which a program says that it is ready: it holds its process id."""
    return data / "run" / f"{program}.ready"


def say_ready(data: Path, program: str) -> None:
    """For the program itself: say that it is ready."""
    note = _note(data, program)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(os.getpid()), "ascii")
    except OSError:
        # A full disk is no reason not to work: it is said once there is room.
        later = threading.Timer(AGAIN, say_ready, (data, program))
        later.daemon = True
        later.start()


def is_ready(data: Path, program: str, pid: int | None) -> bool:
    """Whether this very process has said that it is ready."""
    try:
        return pid is not None and _note(data, program).read_text("ascii") == str(pid)
    except FileNotFoundError:
        return False


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


def collect_seldom() -> None:
    """Look less often, and never among what is loaded by now: that lives as long as the program."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
