"""Why the broker died, read from the last lines it said."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

DISK_FULL, PORT_TAKEN, LOCKED, OTHER = "HUB-E2007", "HUB-E2003", "HUB-E2005", "HUB-E2008"

SIGNS = (
    # Writing into a mapped file is how the JVM meets a full tmpfs.
    (DISK_FULL, re.compile(r"No space left on device|Disk quota exceeded|fault occurred in .*unsafe memory access")),
    (PORT_TAKEN, re.compile(r"Address already in use")),
    (LOCKED, re.compile(r"Failed to acquire lock on file|OverlappingFileLockException")),
)
NOISE = re.compile(
    r"^\s+at |^\s*\.\.\. \d+ more|^[\s#]*$"  # a stack trace
    r"|^Error: (Could not create the Java|A fatal exception has)|^Error occurred during init|report file|^# /|^WARNING: "
)
TELLING = re.compile(r"Caused by: |Exception\b|Error\b|^(ERROR|FATAL) |memory")


def code_of(lines: Sequence[str]) -> str:
    """The error code for these last words: the first sign found in the table's order."""
    return next((code for code, sign in SIGNS if any(sign.search(line) for line in lines)), OTHER)


def cause_in(lines: Sequence[str]) -> str:
    """The one line that says most: the last that names an error, else the last that isn't noise."""
    spoken = [line.strip("# \t") for line in lines if not NOISE.search(line)]
    telling = [line for line in spoken if TELLING.search(line)]
    return (telling or spoken or ["?"])[-1].removeprefix("Caused by: ")[:300]


def cause(code: int, lines: Sequence[str]) -> str:
    """Why a program ended: the signal that killed it, else what it said last, else its code."""
    if code < 0:
        return signal.Signals(-code).name
    return cause_in(lines) if lines else f"exit code {code}"
