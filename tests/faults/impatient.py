"""`python -m tests.faults.impatient up …`: `hub`, but a program that ended is started again after half a second at most.

A program that is killed again and again waits up to ten seconds for its next start: eleven minutes of a hundred kills, in which
nothing can be broken.
"""

from __future__ import annotations

from hub.cli.main import run
from hub.ops import programs

MOST = 0.5

if __name__ == "__main__":
    programs.MAX_PAUSE_S = MOST
    run()
