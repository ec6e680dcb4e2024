"""A disk of a few megabytes that a test may fill and free."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.parts import PartMissingError, text

STEP = 64 * 1024


@dataclass
class SmallDisk:
    """A file system of its own, mounted at `path`."""

    path: Path

    def fill(self, leave: int = 0) -> None:
        """Write until nothing fits any more, but for so many bytes; what others free meanwhile is taken too."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            for size in (STEP, 512, 1):
                with contextlib.suppress(OSError):
                    while self.left > leave:
                        filler.write(b"\0" * min(size, self.left - leave) if leave else b"\0" * size)

    def free(self) -> None:
        """Give the space back."""
        (self.path / "filler").unlink()

    @property
    def left(self) -> int:
        """Bytes that still fit."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def small_disk(path: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount a disk in memory for the time of the block. Needs the right to mount: root, or a container that has it."""
    path.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(path)], capture_output=True, text=True
    )
    if done.returncode:
        raise PartMissingError("mount", text("需要 root", "needs root") + f" ({done.stderr.strip()})")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
