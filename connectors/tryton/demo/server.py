"""Runs a real, throw-away Tryton on this machine, for the demo and for tests.

Its virtual environment and its database templates are created once per machine and cached.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from connectors.tryton.client import TrytonClient
from connectors.tryton.demo import people
from connectors.tryton.demo.people import DemoAccess
from hub.errors import RetryableError, preferred_language

Progress = Callable[[str, float | None], None]
"""Called with one line for a person, and how much of that step is done (0 to 1, None when unknown)."""

VERSION = "8.2.1"
MODULES = ("ir", "res", "sale_opportunity", "project", "project_plan")
REQUIREMENTS = Path(__file__).parent / "server-requirements.txt"
STEP_TIMEOUT_S = 1800.0
PROGRESS_TEXTS = {
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


def progress_text(line: str, **facts: object) -> str:
    """One line in the user's language."""
    return PROGRESS_TEXTS[line][preferred_language()].format(**facts)


def cache() -> Path:
    """The cache folder of this set of versions and seeds: another set gets its own folder, so none is ever changed."""
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


def seeded_database() -> Path:
    """The database with a company, people and a product."""
    return cache() / f"seeded-{_digest(Path(people.__file__).read_bytes())}.sqlite"


@contextlib.contextmanager
def cache_lock() -> Iterator[None]:
    """Lock the cache for one process; the operating system releases the lock when the process ends, in any way."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(progress: Progress) -> None:
    """Create the virtual environment, with uv if it is installed. Raises RetryableError without network or disk space."""
    done = cache() / "venv" / "installed"
    if done.exists():
        return
    with cache_lock():
        if done.exists():
            return
        progress(progress_text("install", version=VERSION), None)
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
    with cache_lock():
        if template().exists():
            return
        progress(progress_text("template"), None)
        work = cache() / "making"
        shutil.rmtree(work, ignore_errors=True)
        conf = configure(work, 0)
        # SQLite: Tryton requires the database file to exist.
        database(work).touch()
        password = work / "password"
        password.write_text(people.PASSWORD)
        admin = "from trytond.cli.admin import main; main()"
        options = [
            "-c",
            str(conf),
            "-d",
            people.DATABASE,
            "--activate-dependencies",
            "--email",
            "admin@example.invalid",
        ]
        run([str(python()), "-I", "-c", admin, *options, "-u", *MODULES], TRYTONPASSFILE=str(password))
        save_database(database(work), template())
        shutil.rmtree(work)


def save_database(source: Path, target: Path) -> None:
    """Copy a database including its write-ahead log; the target appears complete or not at all."""
    unfinished = target.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as opened:
        opened.execute("VACUUM INTO ?", (str(unfinished),))
    unfinished.replace(target)


def database(root: Path) -> Path:
    """The database file of a server that lives in `root`."""
    return root / "db" / f"{people.DATABASE}.sqlite"


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
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TRYTON")}
    return {**ours, **more}


def run(command: Sequence[str], **variables: str) -> None:
    """Run one step to its end; raises RetryableError with its last line of output."""
    step_failed = functools.partial(RetryableError, "HUB-E4110", version=VERSION)
    try:
        done = subprocess.run(
            command, env=environment(**variables), capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as broken:
        raise step_failed(reason=f"{type(broken).__name__} {Path(command[0]).name}") from broken
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise step_failed(reason=lines[-1] if lines else f"exit code {done.returncode}")


# The server exits when its standard input ends, so it ends with us, even when we are killed.
SERVER_CODE = (
    "import os, sys, threading\n"
    "threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()\n"
    "from trytond.cli import main\n"
    "main()"
)
LISTENING_LINE = b"Running on http://127.0.0.1:"
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


class RealTryton:
    """One Tryton server with its database and log in `root`, which nothing else may use at the same time.

    The first `start` on a machine installs Tryton and creates its templates (about 90 s, needs network); both are cached, so
    that later starts take some 3 s and need no network. Several processes may start servers at once.
    """

    def __init__(self, root: Path, progress: Progress = lambda line, done: None) -> None:
        self.root, self.progress = root, progress
        self.url = ""
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def install(self) -> None:
        """Create Tryton's virtual environment. Raises RetryableError when its packages cannot be downloaded."""
        install(self.progress)

    def prepare(self) -> None:
        """Install, and create the database templates. Raises RetryableError when that fails; may then be called again."""
        self.install()
        make_template(self.progress)
        _make_seeded_database(self.progress)

    def start(self, port: int = 0, *, keep: bool = False) -> str:
        """Serve a fresh copy of the seeded database, or with `keep` the existing one, and return the address.

        Blocks until the server answers. `port` 0 picks a free one. A server that runs already is stopped first. Raises
        RetryableError when the server does not come up.
        """
        self.stop()
        self.prepare()
        self.progress(progress_text("start", version=VERSION), None)
        if not (keep and database(self.root).exists()):
            _copy(seeded_database(), self.root)
        self.url = self._serve(port)
        return self.url

    def account(self) -> DemoAccess:
        """The access data of the hub and of the seeded database's people, while the server runs."""
        return DemoAccess(url=self.url)

    def stop(self) -> None:
        """Stop the server; may be called twice."""
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        with contextlib.suppress(BrokenPipeError):
            if self._server.stdin:
                self._server.stdin.close()
        self._server = None

    def _serve(self, port: int) -> str:
        """Start the server, on another free port when a different program has taken the first."""
        for attempt in range(3):
            chosen = port or _free_port()
            try:
                return self._serve_on(chosen)
            except RetryableError:
                self.stop()
                if port or attempt == 2:
                    raise
        raise AssertionError("the last attempt returned or raised")

    def _serve_on(self, port: int) -> str:
        conf = configure(self.root, port)
        command = [str(python()), "-I", "-c", SERVER_CODE, "-c", str(conf), "-d", people.DATABASE]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                command,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,  # a terminal sends Ctrl-C to all programs of a group, and this one ends last
            )
        return self._ready(self._server, f"http://127.0.0.1:{port}")

    def _ready(self, server: subprocess.Popen[bytes], url: str) -> str:
        """Wait until it logs that it has the port, then until it answers there: an answer alone may be another program's."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while LISTENING_LINE not in self._log.read_bytes():
            if server.poll() is not None or time.monotonic() > deadline:
                raise self._failed(self._last_log_line())
            time.sleep(0.05)
        with contextlib.closing(TrytonClient(url, people.DATABASE, people.HUB_LOGIN, people.PASSWORD)) as client:
            client.version()
        return url

    def _failed(self, reason: str) -> RetryableError:
        return RetryableError("HUB-E4111", reason=reason, log=str(self._log))

    def _last_log_line(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"no answer for {READY_TIMEOUT_S:.0f} s"

    @property
    def _log(self) -> Path:
        return self.root / "trytond.log"


def _make_seeded_database(progress: Progress) -> None:
    """Fill the bare template once through its own server, as an administrator would."""
    if seeded_database().exists():
        return
    with cache_lock():
        if seeded_database().exists():
            return
        progress(progress_text("seed"), None)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            server = RealTryton(Path(folder))
            _copy(template(), server.root)
            with contextlib.ExitStack() as ending:
                ending.callback(server.stop)
                url = server._serve(0)
                admin = TrytonClient(url, people.DATABASE, "admin", people.PASSWORD)
                ending.enter_context(contextlib.closing(admin))
                people.seed(admin)
            save_database(database(server.root), seeded_database())


def _copy(template: Path, root: Path) -> None:
    """Replace the database by a fresh copy; also delete the old write-ahead log, which would bring its rows back."""
    target = database(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(target.name + "*"):
        old.unlink()
    shutil.copyfile(template, target)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
