"""A program's heartbeat: its main loop writes a byte a second into a pipe that its supervisor reads.

A pipe, and no file: a disk that is full or stands still must not pass for a program that does. It says that the loop turns and
nothing about headway, which `hub.health` judges: a program that waits for an away store, or restores, beats on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "HUB_HEARTBEAT"
"""`FD:INODE` of the pipe. The inode proves that the descriptor is that pipe: others may get the environment, and not the pipe."""
EVERY = 1.0
"""Seconds between two beats."""


@dataclass
class Heart:
    """The program's side. Without a supervisor it beats for nobody."""

    descriptor: int | None = None

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] | None = None) -> Heart:
        """The heart that the supervisor has given this process, if it has."""
        told = (os.environ if environ is None else environ).get(VARIABLE, "")
        descriptor, _, inode = told.partition(":")
        with contextlib.suppress(ValueError, OSError):
            found = os.fstat(int(descriptor))
            if stat.S_ISFIFO(found.st_mode) and found.st_ino == int(inode):
                return cls(int(descriptor))
        return cls()

    def beat(self) -> None:
        """Beat once; never waits. A supervisor that reads nothing, or has gone, is no reason to end."""
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self.descriptor, b".")

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat for as long as this loop turns."""
        if self.descriptor is not None and not loop.is_closed():
            self.beat()
            loop.call_later(EVERY, self.follow, loop)


@dataclass
class Pulse:
    """The supervisor's side of one run of a program."""

    reading: int
    writing: int

    @classmethod
    def new(cls) -> Pulse:
        """A new pipe; neither end is inherited but by whom it is given to."""
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        return cls(reading, writing)

    @property
    def environment(self) -> dict[str, str]:
        """What tells the program of it."""
        return {VARIABLE: f"{self.writing}:{os.fstat(self.writing).st_ino}"}

    def given(self) -> None:
        """The program has its end: this process lets go of it."""
        os.close(self.writing)
        self.writing = -1

    def beaten(self) -> bool:
        """Whether there was a beat since this was asked last."""
        try:
            return bool(os.read(self.reading, 65_536))
        except OSError:
            return False

    def close(self) -> None:
        """The run is over."""
        for end in (self.reading, self.writing):
            if end >= 0:
                os.close(end)
        self.reading = self.writing = -1
