"""Becomes the program given to it, tied to its parent: on Linux that program gets SIGTERM when the parent dies, kill -9 included.

Run as a script (`python tether.py PARENT_PID PROGRAM ARG...`) between fork and exec, where a `preexec_fn` could deadlock in a
process with threads. Outside Linux it has no effect; the next start then stops the leftover programs.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):  # the parent died before the line above
        raise SystemExit(143)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - a list, no shell


if __name__ == "__main__":
    main()
