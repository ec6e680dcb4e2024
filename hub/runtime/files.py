"""Sockets of this machine's file system, also below a folder whose path is too long for one.

Writing a file whole or not at all.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
from pathlib import Path

from hub.errors import FatalError


def write_whole(file: Path, content: bytes) -> None:
    """Put this in the place of what the file says; a reader sees the one or the other. Raises OSError.

    Several programs may write it at once: each writes a draft of its own, and the last one's stays.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.new")
    draft.write_bytes(content)
    draft.replace(file)


LONGEST = 107 if sys.platform == "linux" else 103
"""Bytes that the system allows for the name of a socket."""
DESCRIPTORS = Path("/proc/self/fd")


def name_of(path: Path) -> str:
    """A name for this place that a socket may have: by the folder's descriptor where the path is too long.

    It holds in this process, for as long as it lives. Raises FatalError HUB-E1024 where the system has no such names.
    """
    check(path)
    if len(os.fsencode(path)) <= LONGEST:
        return str(path)
    return f"{DESCRIPTORS}/{_folder(path.parent)}/{path.name}"


def check(path: Path) -> None:
    """Raises FatalError HUB-E1024 when no socket can be there."""
    length = len(os.fsencode(path))
    if length > LONGEST and not DESCRIPTORS.is_dir():
        raise FatalError("HUB-E1024", path=path, length=length, longest=LONGEST)


@functools.cache
def _folder(path: Path) -> int:
    """A descriptor of a folder, kept open."""
    path.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def listening(path: Path, waiting: int = 1024) -> socket.socket:
    """A socket that listens there, for its owner alone; one that a killed program left behind makes room."""
    name = name_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        made.bind(name)
    finally:
        os.umask(before)
    made.listen(waiting)
    return made
