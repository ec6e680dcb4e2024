"""A real PostgreSQL for tests: Debian's, started once for the session, on loopback only, with a database for each test."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

NewDatabase = Callable[[], str]
"""Makes an empty database; its SQLAlchemy URL."""


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found:
        raise RuntimeError("PostgreSQL is missing: apt-get install postgresql")
    return found[-1]


def _as_owner() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []


def _run(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs; its output goes to a file, since the server that pg_ctl leaves behind keeps it open."""
    command = [*_as_owner(), str(_programs() / program), *arguments]
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{program} failed with {done.returncode}: {output.read().decode(errors='replace')}")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDatabase]:
    """Call it for an empty database."""
    folder = tmp_path_factory.mktemp("postgres")
    if os.geteuid() == 0:
        for each in (folder, folder.parent, folder.parent.parent):
            each.chmod(0o755)  # the server runs as another user
    data = folder / "run" / "data"
    subprocess.run(["install", "-d", *(["-o", "postgres"] if os.geteuid() == 0 else []), str(data.parent)], check=True)
    _run("initdb", "-D", str(data), "-U", "hub", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {data.parent} -c fsync=off -c full_page_writes=off"
    _run("pg_ctl", "-D", str(data), "-w", "-t", "60", "-l", str(data.parent / "log"), "-o", options, "start")
    try:
        yield lambda: _database(port)
    finally:
        _run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")


def _database(port: int) -> str:
    name = f"test_{secrets.token_hex(6)}"
    engine = create_engine(f"postgresql+psycopg://hub@127.0.0.1:{port}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"postgresql+psycopg://hub@127.0.0.1:{port}/{name}"
