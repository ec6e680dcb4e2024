"""Tryton's own virtual environment and its database templates, made once per machine and cached."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from connectors.tryton import seed
from hub.errors import RetryableError, preferred_language

Progress = Callable[[str, float | None], None]
"""Takes one line for a person, and how much of that step is done (0 to 1, None when nobody can know)."""

VERSION = "8.2.1"
MODULES = ("ir", "res", "sale_opportunity", "project", "project_plan")
REQUIREMENTS = Path(__file__).parent / "server-requirements.txt"
STEP_SECONDS = 1800.0
LINES = {
    "install": {
        "zh-CN": "正在安装 Tryton {version}（约 20 MB，仅首次运行）",
        "en": "installing Tryton {version} (about 20 MB, first run only)",
    },
    "template": {
        "zh-CN": "正在创建 Tryton 数据库模板（约 1 分钟，仅首次运行）",
        "en": "making Tryton's database template (about a minute, first run only)",
    },
    "seed": {
        "zh-CN": "正在填入公司、员工和产品（仅首次运行）",
        "en": "filling in a company, its people and a product (first run only)",
    },
    "start": {"zh-CN": "正在启动 Tryton {version}", "en": "starting Tryton {version}"},
}


def say(line: str, **facts: object) -> str:
    """One line in the user's language."""
    return LINES[line][preferred_language()].format(**facts)


def cache() -> Path:
    """Where this set of versions and seeds is kept: another set gets a folder of its own, so none is ever changed."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "baton" / f"tryton-{VERSION}-{_digest(REQUIREMENTS.read_bytes())}"


def _digest(*parts: bytes) -> str:
    python = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(b"\0".join([python.encode(), " ".join(MODULES).encode(), *parts])).hexdigest()[:10]


def python() -> Path:
    """The interpreter that Tryton runs under."""
    return cache() / "venv" / "bin" / "python"


def template() -> Path:
    """The database with its modules and nothing else."""
    return cache() / "template.sqlite"


def seeded() -> Path:
    """The database with a company, people and a product."""
    return cache() / f"seeded-{_digest(Path(seed.__file__).read_bytes())}.sqlite"


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """One process at a time in the cache; the lock goes with its process, however that ends."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(progress: Progress) -> None:
    """Make the virtual environment, with uv where it is there. Raises RetryableError without network or disk."""
    done = cache() / "venv" / "installed"
    if done.exists():
        return
    with turn():
        if done.exists():
            return
        progress(say("install", version=VERSION), None)
        shutil.rmtree(cache() / "venv", ignore_errors=True)
        for command in _install_commands(cache() / "venv", shutil.which("uv")):
            run(command)
        done.touch()


def _install_commands(venv: Path, uv: str | None) -> list[list[str]]:
    """uv first; without it the standard library's venv and pip, which take a minute longer."""
    target = str(venv / "bin" / "python")
    if uv:
        options = ["--no-deps", "--compile-bytecode", "--quiet", "-r", str(REQUIREMENTS)]
        return [
            [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, str(venv)],
            [uv, "pip", "install", "--python", target, *options],
        ]
    options = ["--no-deps", "--quiet", "--no-input", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    return [[sys.executable, "-m", "venv", str(venv)], [target, "-m", "pip", "install", *options]]


def make_template(progress: Progress) -> None:
    """Create the database template: about 50 s of CPU. Raises RetryableError when Tryton's set-up fails."""
    if template().exists():
        return
    with turn():
        if template().exists():
            return
        progress(say("template"), None)
        work = cache() / "making"
        shutil.rmtree(work, ignore_errors=True)
        conf = configure(work, 0)
        # SQLite: Tryton only takes a database whose file is there.
        database(work).touch()
        password = work / "password"
        password.write_text(seed.PASSWORD)
        admin = "from trytond.cli.admin import main; main()"
        options = ["-c", str(conf), "-d", seed.DATABASE, "--activate-dependencies", "--email", "admin@example.invalid"]
        run([str(python()), "-I", "-c", admin, *options, "-u", *MODULES], TRYTONPASSFILE=str(password))
        keep(database(work), template())
        shutil.rmtree(work)


def keep(source: Path, target: Path) -> None:
    """Copy a database, with what still stands in its write-ahead log; the target appears whole or not at all."""
    unfinished = target.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as opened:
        opened.execute("VACUUM INTO ?", (str(unfinished),))
    unfinished.replace(target)


def database(root: Path) -> Path:
    """The database file of a server that lives in `root`."""
    return root / "db" / f"{seed.DATABASE}.sqlite"


def configure(root: Path, port: int) -> Path:
    """Write the server's configuration; the server listens on this machine only."""
    database(root).parent.mkdir(parents=True, exist_ok=True)
    conf = root / "trytond.conf"
    conf.write_text(
        f"[database]\nuri = sqlite://\npath = {database(root).parent}\n"
        f"[web]\nlisten = 127.0.0.1:{port}\n"
        "[session]\nauthentications = password\n"
    )
    return conf


def environment(**more: str) -> dict[str, str]:
    """The environment for Tryton: ours without settings that would override its configuration file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRYTON")}
    return {**kept, **more}


def run(command: Sequence[str], **variables: str) -> None:
    """Run one step to its end; raises RetryableError with the last line that it said."""
    told = functools.partial(RetryableError, "HUB-E4110", version=VERSION)
    try:
        done = subprocess.run(
            command, env=environment(**variables), capture_output=True, text=True, timeout=STEP_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as broken:
        raise told(reason=f"{type(broken).__name__} {Path(command[0]).name}") from broken
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise told(reason=lines[-1] if lines else f"exit code {done.returncode}")
