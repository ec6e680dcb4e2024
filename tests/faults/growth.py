"""How the programs grow with time: resident memory and open files, and what that would come to in an hour."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import linear_regression

from tests.process_state import memory_mb

WARM, LONG = 900.0, 900.0
"""Seconds of a process's life that do not count, while caches fill and Java compiles; and for how long it must live on."""
HOUR = 3600.0


@dataclass(frozen=True)
class Sample:
    """What a process had at a time: `seconds` by the monotonic clock."""

    seconds: float
    mb: float
    files: int
    peak_mb: float = 0.0

    @classmethod
    def of(cls, pid: int, seconds: float) -> Sample:
        """Now. Raises OSError or IndexError when the process is gone."""
        mb, peak = memory_mb(pid)
        return cls(seconds, mb, len(os.listdir(f"/proc/{pid}/fd")), peak)


@dataclass
class Growth:
    """What was measured of every process, by program and pid."""

    samples: defaultdict[tuple[str, int], list[Sample]] = field(default_factory=lambda: defaultdict(list))

    def note(self, program: str, pid: int, seconds: float) -> None:
        """Measure one now; one that is gone raises OSError or IndexError, and leaves nothing."""
        sample = Sample.of(pid, seconds)
        self.samples[program, pid].append(sample)

    def peak_mb(self) -> dict[str, float]:
        """The largest size of each program so far, whichever process it was."""
        peaks = dict[str, float]()
        for (program, _), samples in self.samples.items():
            peaks[program] = max(samples[-1].peak_mb, peaks.get(program, 0.0))
        return peaks

    def an_hour(self) -> dict[str, dict[str, float]]:
        """Of each program that ran long enough in one process: MB and open files more after an hour, by least squares."""
        told = [(program, _an_hour(samples)) for (program, _), samples in self.samples.items()]
        return {program: growth for program, growth in told if growth}


def _an_hour(samples: Sequence[Sample]) -> dict[str, float]:
    late = [sample for sample in samples if sample.seconds - samples[0].seconds >= WARM]
    if not late or late[-1].seconds - late[0].seconds < LONG:
        return {}
    at = [sample.seconds for sample in late]
    return {
        "mb": round(linear_regression(at, [sample.mb for sample in late]).slope * HOUR, 2),
        "files": round(linear_regression(at, [sample.files for sample in late]).slope * HOUR, 2),
    }
