"""The broker's data folder: its lock, and the files that record the broker's process, port, cluster id and secret."""

from __future__ import annotations

import base64
import errno
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

from hub.errors import FatalError
from hub.log.embedded_client import PORT_FILE, SECRET_FILE, number_in, secret_in

MIN_FREE_BYTES = 200 * 1024 * 1024
"""Free disk space that a start needs."""

STOP_GRACE_S = 20.0


class Folder:
    """`<home>/.hub/kafka`: log/ (Kafka's), logs/ (its output), and lock, pid, port, cluster, secret."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.log, self.logs, self.tmp = self.path / "log", self.path / "logs", self.path / "tmp"
        self._pid, self._port, self._cluster = self.path / "pid", self.path / PORT_FILE, self.path / "cluster"
        self._secret = self.path / SECRET_FILE
        self._lock: int | None = None

    @property
    def mark(self) -> str:
        """The command-line argument that identifies this folder's broker among the processes."""
        return f"-Dhub.kafka.data={self.path}"

    def claim(self) -> None:
        """Make the folder (0700) and lock it until `release` or the end of this process, kill -9 included.

        Raises FatalError: HUB-E2005 when another process holds the lock, HUB-E2009 when it can't be written.
        """
        if self._lock is None:
            try:
                self._make()
                self._lock = self._locked()
            except OSError as error:
                raise unusable(self.path, error) from error

    def _locked(self) -> int:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.write(lock, b"%d\n" % os.getpid())
        except OSError as error:
            holder = os.read(lock, 20).decode().strip() or "?"
            os.close(lock)
            if isinstance(error, BlockingIOError):
                raise FatalError("HUB-E2005", data=self.path, pid=holder) from error
            raise
        return lock

    def _make(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)
        for folder in (self.log, self.logs, self.tmp):
            folder.mkdir(exist_ok=True)

    def release(self) -> None:
        """Unlock the folder; no effect when it isn't locked."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_space(self) -> None:
        """Raises FatalError HUB-E2006 when less than `MIN_FREE_BYTES` is free."""
        free = shutil.disk_usage(self.path).free
        if free < MIN_FREE_BYTES:
            raise FatalError("HUB-E2006", data=self.path, free=free // 2**20, needed=MIN_FREE_BYTES // 2**20)

    def sweep(self) -> None:
        """Delete the libraries that killed brokers unpacked. Call it only while none runs."""
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(exist_ok=True)

    def cluster(self) -> str:
        """The id of this folder's Kafka cluster: random, generated once and stored."""
        if not self._cluster.exists():
            fresh = base64.urlsafe_b64encode(b"\x2f" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
            partial = self._cluster.with_suffix(".new")
            partial.write_text(fresh + "\n")
            partial.replace(self._cluster)
        return self._cluster.read_text().strip()

    def secret(self) -> str:
        """The secret for signing in at this folder's broker: random, generated when absent, readable by its owner only."""
        if self.noted_secret() is None:
            self.write_private(SECRET_FILE, secrets.token_urlsafe(32) + "\n")
        self._secret.chmod(0o600)
        return self._secret.read_text("ascii").strip()

    def noted_secret(self) -> str | None:
        """The stored secret; None when there is none."""
        return secret_in(self.path)

    def write_private(self, name: str, text: str) -> None:
        """Write a file atomically that only its owner can read."""
        partial = self.path / f"{name}.new"
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(text)
        partial.replace(self.path / name)

    @property
    def is_formatted(self) -> bool:
        """Whether the storage tool has finished: it writes this file last."""
        return (self.log / "meta.properties").exists()

    def note(self, pid: int, port: int) -> None:
        """Record the broker's process and port, for other programs and for the start after a crash."""
        self._pid.write_text(f"{pid}\n")
        self._port.write_text(f"{port}\n")

    def forget(self) -> None:
        """Delete the record after a clean stop."""
        self._pid.unlink(missing_ok=True)
        self._port.unlink(missing_ok=True)

    def noted_port(self) -> int | None:
        """The port that the broker has, or had when it died."""
        return number_in(self._port)

    def orphan(self) -> int | None:
        """The process id of a broker still running on this folder. Only for the holder of the lock."""
        pid = number_in(self._pid)
        return pid if pid is not None and self._is_broker(pid) else None

    def stop_orphan(self, pid: int) -> None:
        """SIGTERM, 20 s, SIGKILL; returns after its end."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, sign)
                os.kill(pid, signal.SIGCONT)  # a suspended process does not handle SIGTERM
            except ProcessLookupError:
                return
            deadline = time.monotonic() + STOP_GRACE_S
            while time.monotonic() < deadline:
                if not self._is_broker(pid):
                    return
                time.sleep(0.05)
        raise FatalError("HUB-E2005", data=self.path, pid=pid)

    def _is_broker(self, pid: int) -> bool:
        # The pid alone proves nothing: it may have been reused.
        return os.fsencode(self.mark) in _command_line(pid)


def unusable(path: Path, error: OSError) -> FatalError:
    """The error for a folder that can't be created or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FatalError("HUB-E2006", data=path, free=0, needed=MIN_FREE_BYTES // 2**20)
    return FatalError("HUB-E2009", data=path, reason=error.strerror or type(error).__name__)


def _command_line(pid: int) -> bytes:
    """A process's command line; empty when there is no such process (or only a zombie)."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return b""
    return subprocess.run(["ps", "-ww", "-p", str(pid), "-o", "command="], capture_output=True, check=False).stdout
