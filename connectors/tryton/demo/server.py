"""A real, throw-away Tryton on this machine, for the demo and for tests.

Tryton's own virtual environment and its database templates, made once per machine and cached.
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
    return cache() / f"seeded-{_digest(Path(people.__file__).read_bytes())}.sqlite"


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


# The server reads its standard input to the end and leaves then: it ends with us, even when we are killed.
RUN = (
    "import os, sys, threading\n"
    "threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()\n"
    "from trytond.cli import main\n"
    "main()"
)
BOUND = b"Running on http://127.0.0.1:"
READY_SECONDS = 120.0
STOP_SECONDS = 10.0


class RealTryton:
    """One Tryton server with its database and log in `root`, which nothing else may use at the same time.

    The first `start` on a machine installs Tryton and makes its templates (about a minute and a half, needs network); both
    are cached, so that later ones take some three seconds and need no network. Several processes may do so at once.
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
        """Make Tryton's own virtual environment. Raises RetryableError when its packages can't be had."""
        install(self.progress)

    def prepare(self) -> None:
        """Install, and make the database templates. Raises RetryableError when that fails; may then be called again."""
        self.install()
        make_template(self.progress)
        _make_seeded(self.progress)

    def start(self, port: int = 0, *, keep: bool = False) -> str:
        """Serve a fresh copy of the seeded database, or with `keep` the one that is there, and give the address.

        Returns when it answers. `port` 0 takes a free one. One that runs already is ended first. Raises RetryableError when
        it does not come up.
        """
        self.stop()
        self.prepare()
        self.progress(say("start", version=VERSION), None)
        if not (keep and database(self.root).exists()):
            _copy(seeded(), self.root)
        self.url = self._serve(port)
        return self.url

    def account(self) -> DemoAccess:
        """How the hub and the people of the seeded database get in, while it runs."""
        return DemoAccess(url=self.url)

    def stop(self) -> None:
        """End the server; may be called twice."""
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        with contextlib.suppress(BrokenPipeError):
            if self._server.stdin:
                self._server.stdin.close()
        self._server = None

    def _serve(self, port: int) -> str:
        """Start the server, on another free port when somebody was quicker."""
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
        command = [str(python()), "-I", "-c", RUN, "-c", str(conf), "-d", people.DATABASE]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                command,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,  # a terminal tells Ctrl-C to all programs of a group, and this one ends last
            )
        return self._ready(self._server, f"http://127.0.0.1:{port}")

    def _ready(self, server: subprocess.Popen[bytes], url: str) -> str:
        """Wait until it says that it has the port, and then answers there: an answer alone may be a stranger's."""
        deadline = time.monotonic() + READY_SECONDS
        while BOUND not in self._log.read_bytes():
            if server.poll() is not None or time.monotonic() > deadline:
                raise self._failed(self._last_words())
            time.sleep(0.05)
        with contextlib.closing(TrytonClient(url, people.DATABASE, people.HUB, people.PASSWORD)) as anybody:
            anybody.version()
        return url

    def _failed(self, reason: str) -> RetryableError:
        return RetryableError("HUB-E4111", reason=reason, log=str(self._log))

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"no answer for {READY_SECONDS:.0f} s"

    @property
    def _log(self) -> Path:
        return self.root / "trytond.log"


def _make_seeded(progress: Progress) -> None:
    """Fill the bare template by its own server once, as an administrator would."""
    if seeded().exists():
        return
    with turn():
        if seeded().exists():
            return
        progress(say("seed"), None)
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            server = RealTryton(Path(folder))
            _copy(template(), server.root)
            with contextlib.ExitStack() as ending:
                ending.callback(server.stop)
                url = server._serve(0)
                admin = TrytonClient(url, people.DATABASE, "admin", people.PASSWORD)
                ending.enter_context(contextlib.closing(admin))
                people.seed(admin)
            keep(database(server.root), seeded())


def _copy(template: Path, root: Path) -> None:
    """Put a fresh database there; a write-ahead log of the old one would bring its rows back."""
    target = database(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(target.name + "*"):
        old.unlink()
    shutil.copyfile(template, target)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
