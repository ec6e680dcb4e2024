"""A real PostgreSQL of one's own: Debian's or a wheel's, on loopback only, to be started, paused and killed at will."""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.parts import POSTGRESQL
from tests.ports import free_port


def _owner() -> pwd.struct_passwd | None:
    """Who runs the server: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    found = {user.pw_name: user for user in pwd.getpwall()}
    return found.get("postgres") or found["nobody"]


def _as_owner() -> list[str]:
    owner = _owner()
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"] if owner else []


@functools.cache
def _programs() -> Path:
    """PostgreSQL's programs, where the one who runs them may read them: root's virtual environments are often closed to others."""
    found = POSTGRESQL.get()
    if _owner() is None or found.is_relative_to("/usr"):
        return found
    copy = Path(tempfile.mkdtemp(prefix="postgresql-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    site = found.parents[2]  # of a wheel: the package, and beside it the libraries that it brings
    for folder in site.glob(f"{found.parents[1].name}*"):
        shutil.copytree(folder, copy / folder.name, symlinks=True)
    return copy / found.relative_to(site)


def _run(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; its output goes to a file, since the server that pg_ctl leaves behind keeps it open."""
    command = [*_as_owner(), str(_programs() / program), *arguments]
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{program} failed with {done.returncode}: {output.read().decode(errors='replace')}")


class PostgresServer:
    """One server. `durable` makes it flush as a production server does; tests that kill no machine need no flush."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        if os.geteuid() == 0:
            temporary = Path(tempfile.gettempdir())
            for each in (folder, *folder.parents):  # the server runs as another user
                if each.is_relative_to(temporary) and each != temporary:
                    each.chmod(0o755)
        self.data = folder / "run" / "data"
        self.data.parent.mkdir()
        if owner := _owner():
            os.chown(self.data.parent, owner.pw_uid, owner.pw_gid)
        _run("initdb", "-D", str(self.data), "-U", "hub", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.port = free_port()
        flushing = "" if durable else " -c fsync=off -c full_page_writes=off"
        self._options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.data.parent}{flushing}"

    def start(self) -> None:
        """Return once it answers."""
        log = str(self.data.parent / "log")
        _run("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", log, "-o", self._options, "start")

    def start_again(self) -> None:
        """Start it if it has ended by itself, as it does when it cannot write."""
        pid = self.pid()
        if pid is None or not Path(f"/proc/{pid}").exists():
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            self.start()

    def stop(self) -> None:
        """End it, as far as it runs."""
        if self.pid() is not None:
            _run("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def kill(self) -> None:
        """kill -9 of the server; returns when all its processes have noticed."""
        pid = self.pid()
        assert pid is not None, "PostgreSQL does not run"
        children = _children(pid)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{child}").exists() for child in (pid, *children)):
            assert time.monotonic() < deadline, "PostgreSQL's processes do not end"
            time.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def backup(self) -> Path:
        """A copy of all its databases as they are now, in the place of an older one."""
        copy = self.data.parent / "backup"
        shutil.rmtree(copy, ignore_errors=True)
        at = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "hub"]
        _run("pg_basebackup", "-D", str(copy), *at, "-X", "stream", "-c", "fast", "--no-sync")
        return copy

    def go_on_from(self, copy: Path) -> None:
        """Be killed, and go on from a copy, as a standby does that is promoted."""
        self.kill()
        shutil.rmtree(self.data)
        copy.rename(self.data)
        (self.data / "standby.signal").touch()
        self.start()
        _run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def pause(self, stopped: bool) -> None:
        """SIGSTOP or SIGCONT for the server and every process of it."""
        pid = self.pid()
        assert pid is not None, "PostgreSQL does not run"
        for each in (pid, *_children(pid)):
            os.kill(each, signal.SIGSTOP if stopped else signal.SIGCONT)

    def pid(self) -> int | None:
        """The server's process; None when it does not run."""
        file = self.data / "postmaster.pid"
        return int(file.read_text().split()[0]) if file.exists() else None

    def database(self) -> str:
        """A new and empty database; its SQLAlchemy URL."""
        name = f"test_{secrets.token_hex(6)}"
        engine = create_engine(f"postgresql+psycopg://hub@127.0.0.1:{self.port}/postgres", isolation_level="AUTOCOMMIT")
        with engine.connect() as conn:
            conn.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return f"postgresql+psycopg://hub@127.0.0.1:{self.port}/{name}"


@contextmanager
def running_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """One that is ended at the end, in a folder of its own: from pytest's, every start of pytest takes the rights of others."""
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
