"""Atomic file writes, and Unix sockets, also below a folder whose path is too long for a socket name."""

from __future__ import annotations

import functools
import os
import socket
import sys
from pathlib import Path

from hub.errors import FatalError


def write_atomically(file: Path, content: bytes) -> None:
    """Replace the file's content; a reader sees either the old or the new one. Raises OSError.

    Several programs may write at the same time: each writes its own draft, and the last one wins.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.new")
    draft.write_bytes(content)
    draft.replace(file)


MAX_SOCKET_NAME_BYTES = 107 if sys.platform == "linux" else 103
"""The longest socket name that the operating system allows."""
DESCRIPTOR_FOLDER = Path("/proc/self/fd")


def socket_name(path: Path) -> str:
    """A socket name for this path: through the folder's descriptor where the path is too long.

    It is valid in this process only. Raises FatalError HUB-E1024 where the system has no `/proc/self/fd`.
    """
    check_socket_path(path)
    if len(os.fsencode(path)) <= MAX_SOCKET_NAME_BYTES:
        return str(path)
    return f"{DESCRIPTOR_FOLDER}/{_folder(path.parent)}/{path.name}"


def check_socket_path(path: Path) -> None:
    """Raises FatalError HUB-E1024 when no socket can have this path."""
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_NAME_BYTES and not DESCRIPTOR_FOLDER.is_dir():
        raise FatalError("HUB-E1024", path=path, length=length, longest=MAX_SOCKET_NAME_BYTES)


@functools.cache
def _folder(path: Path) -> int:
    """A descriptor of a folder, which stays open."""
    path.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def listening_socket(path: Path, backlog: int = 1024) -> socket.socket:
    """A socket that listens at this path, for its owner only; replaces one that a killed program left behind."""
    name = socket_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    umask = os.umask(0o177)
    try:
        server.bind(name)
    finally:
        os.umask(umask)
    server.listen(backlog)
    return server
