"""What a whole hub stands on, to be spoiled: a file system (which needs root), the machine's clock."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

SIZE = 4 * 1024**3
"""Bytes of a disk; only what is written takes room outside."""
CLOCK = Path(__file__).with_name("clock.c")


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """A file system of the folder's own for the time of the block, that can be full and can stand still."""
    image = folder.with_name(folder.name + ".disk")
    with image.open("wb") as file:
        file.truncate(SIZE)
    try:
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(folder))
        try:
            yield
        finally:
            _run("umount", "--lazy", str(folder))
    finally:
        image.unlink()


def fill(folder: Path) -> Path:
    """Take all the room that there is; the file to remove when it is to be given back."""
    filler = folder / "filler"
    with filler.open("ab") as file:
        for size in (64 * 1024**2, 1024**2, 4096):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
    return filler


@contextlib.contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """Whoever writes there waits."""
    _run("fsfreeze", "--freeze", str(folder))
    try:
        yield
    finally:
        _run("fsfreeze", "--unfreeze", str(folder))


def turnable(clock: Path) -> Mapping[str, str]:
    """The environment in which programs go by a clock that `turn` sets; Java, and with it the broker, keeps the machine's.

    Needs a C compiler: libfaketime of Debian 12 breaks Python's own `time.sleep`.
    """
    library = clock.with_suffix(".so")
    _run("cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(CLOCK))
    clock.write_bytes(bytes(8))
    return {"LD_PRELOAD": str(library), "TURNED_CLOCK": str(clock)}


def turn(clock: Path, seconds: int) -> None:
    """Set it so far from the machine's, for every program that goes by it, at once."""
    with clock.open("r+b", buffering=0) as file:
        file.write(seconds.to_bytes(8, "little", signed=True))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
