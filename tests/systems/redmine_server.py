"""A real, throw-away Redmine on this machine: Debian's package, a database of its own, Puma as its server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from tests.parts import REDMINE, REDMINE_DATABASE, REDMINE_HOME
from tests.ports import free_port

RACKUP = Path(__file__).with_name("redmine_server.ru")
USER = "www-data"
READY_SECONDS = 120.0


class RedmineServer:
    """One Redmine whose database, key and log are in `root`. It ends with us, even when we are killed.

    Its administrator's key is `key`; `li.lei` (李雷) and `lin.tao` (林涛) may be given work; issues have a field `Baton`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Fill the database if it is new, and serve it, on the same port as before. Returns when the key is let in."""
        REDMINE.get()
        if not self._database.exists():
            self._make_database()
        port = int(self.url.rpartition(":")[2]) if self.url else free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_user(), "puma", "-b", f"tcp://127.0.0.1:{port}", "-t", "1:3", "-w", "0", str(self._rackup)],
                cwd=REDMINE_HOME,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        self._wait(self._process)

    def stop(self) -> None:
        """End the server at once; may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Have it down for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it take requests and leave them unanswered; it works them off afterwards."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def api(
        self, method: str, path: str, body: Any = None, *, user: str = "admin", **query: str | int
    ) -> dict[str, Any]:
        """Do what a person does there, through the API; fails on any refusal."""
        response = requests.request(
            method,
            f"{self.url}/{path}.json",
            json=body,
            params=query,
            headers={"X-Redmine-API-Key": self.key, "X-Redmine-Switch-User": user},
            timeout=60,
        )
        assert response.ok, f"{method} {path}: {response.status_code} {response.text[:300]}"
        found: dict[str, Any] = response.json() if response.text.strip() else {}
        return found

    def _make_database(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REDMINE_DATABASE, self._database)
        shutil.copyfile(RACKUP, self._rackup)
        _give(self.root)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, AssertionError):
                self.key = (self.root / "key").read_text()
                self.api("GET", "users/current")
                return
            time.sleep(0.1)
        self.stop()
        raise RuntimeError("Redmine did not start:\n" + self._log.read_text("utf-8", "replace")[-2000:])

    def _environment(self) -> dict[str, str]:
        keep = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
        return {
            **keep,
            "HOME": str(self.root),
            "LANG": "C.UTF-8",
            "RAILS_ENV": "production",
            "DATABASE_URL": f"sqlite3:{self._database}?timeout=10000",
            "BATON_KEY": str(self.root / "key"),
        }

    @property
    def _database(self) -> Path:
        return self.root / "redmine.db"

    @property
    def _rackup(self) -> Path:
        return self.root / "redmine.ru"

    @property
    def _log(self) -> Path:
        return self.root / "puma.log"


def _as_user() -> list[str]:
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]


def _give(root: Path) -> None:
    """Let the server's user in, who may not read the folders of root's temporary files."""
    for path in (root, *root.iterdir()):
        shutil.chown(path, USER, USER)
