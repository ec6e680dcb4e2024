"""A program's log: turned while it is written, so that it never grows past its bound, however long the program runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Bounds:
    """Bytes that a program's logs may take: those of one file, of which one older is kept, and of one line."""

    file: int = 20_000_000
    line: int = 64 * 1024


class RotatingLog:
    """Appends lines. A disk that is full or gone loses lines, and must not take the program with its log. For one thread."""

    def __init__(self, path: Path, bounds: Bounds | None = None) -> None:
        self._path, self._bounds = path, bounds or Bounds()
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, line: str) -> None:
        """Append a line; an endless one is cut."""
        raw = line.encode(errors="replace")
        if len(raw) > self._bounds.line:
            raw = raw[: self._bounds.line] + b" ..."
        raw += b"\n"
        with contextlib.suppress(OSError):
            self._ready(len(raw)).write(raw)
            self._size += len(raw)

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _ready(self, more: int) -> BinaryIO:
        """The file, with room for so many bytes: one that is full is set aside, in the place of an older one."""
        if self._file is None:
            self._open()
        if self._size and self._size + more > self._bounds.file:
            self.close()
            self._path.replace(self._path.with_suffix(".1.log"))
            self._open()
        assert self._file is not None
        return self._file

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size
