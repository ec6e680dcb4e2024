"""A Python environment for each peer, made on demand from its lock: peers and product never share a library's version."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).with_name("locks")


class MissingToolError(Exception):
    """A peer needs what this machine has not; the message says how to get it."""


def cache() -> Path:
    """The folder of this user that holds what peers need; safe to delete while none runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baton" / "bench"


def lock(name: str) -> Path:
    """The file that names, by version and digest, all that a peer needs."""
    return LOCKS / f"{name}.txt"


def python_of(name: str) -> str:
    """The interpreter of a peer's environment; `make` makes it."""
    return str(_folder(name) / "bin" / "python")


def make(name: str) -> None:
    """Install a peer's lock, unless this very lock is installed. Raises subprocess.CalledProcessError when pip refuses."""
    folder = _folder(name)
    done = folder / "installed"
    if done.exists():
        return
    print(f"installing {name}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "--requirement"]
    subprocess.run([python_of(name), *install, str(lock(name))], check=True)
    done.touch()


def _folder(name: str) -> Path:
    """Named after the lock's content too: another lock makes another environment."""
    digest = hashlib.sha256(lock(name).read_bytes()).hexdigest()[:12]
    return cache() / f"{name}-{digest}"
