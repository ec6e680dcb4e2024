"""A real, throw-away Tryton on this machine, for the demo and for tests."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from connectors.tryton import installation, seed
from connectors.tryton.client import TrytonClient
from connectors.tryton.installation import Progress, say
from connectors.tryton.seed import Account
from hub.errors import RetryableError

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
        installation.install(self.progress)

    def prepare(self) -> None:
        """Install, and make the database templates. Raises RetryableError when that fails; may then be called again."""
        self.install()
        installation.make_template(self.progress)
        _make_seeded(self.progress)

    def start(self, port: int = 0, *, keep: bool = False) -> str:
        """Serve a fresh copy of the seeded database, or with `keep` the one that is there, and give the address.

        Returns when it answers. `port` 0 takes a free one. One that runs already is ended first. Raises RetryableError when
        it does not come up.
        """
        self.stop()
        self.prepare()
        self.progress(say("start", version=installation.VERSION), None)
        if not (keep and installation.database(self.root).exists()):
            _copy(installation.seeded(), self.root)
        self.url = self._serve(port)
        return self.url

    def account(self) -> Account:
        """How the hub and the people of the seeded database get in, while it runs."""
        return Account(url=self.url)

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
        conf = installation.configure(self.root, port)
        command = [str(installation.python()), "-I", "-c", RUN, "-c", str(conf), "-d", seed.DATABASE]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                command,
                env=installation.environment(),
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
        with contextlib.closing(TrytonClient(url, seed.DATABASE, seed.HUB, seed.PASSWORD)) as anybody:
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
    if installation.seeded().exists():
        return
    with installation.turn():
        if installation.seeded().exists():
            return
        progress(say("seed"), None)
        with tempfile.TemporaryDirectory(dir=installation.cache()) as folder:
            server = RealTryton(Path(folder))
            _copy(installation.template(), server.root)
            with contextlib.ExitStack() as ending:
                ending.callback(server.stop)
                url = server._serve(0)
                admin = TrytonClient(url, seed.DATABASE, "admin", seed.PASSWORD)
                ending.enter_context(contextlib.closing(admin))
                seed.seed(admin)
            installation.keep(installation.database(server.root), installation.seeded())


def _copy(template: Path, root: Path) -> None:
    """Put a fresh database there; a write-ahead log of the old one would bring its rows back."""
    target = installation.database(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(target.name + "*"):
        old.unlink()
    shutil.copyfile(template, target)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
