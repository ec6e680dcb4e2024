"""What every program does first, tried in a program of its own: it changes the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hub.runtime.program import keep_private, open_to_others

CLOSED = """
import os, socket, sys
from hub.runtime.program import begin
begin()
begin()
door = socket.create_server(("127.0.0.1", 0))
assert door.fileno() > 2, door.fileno()
assert all(os.readlink(f"/proc/self/fd/{n}") == os.devnull for n in %s)
print("to stdout"); sys.stderr.write("to stderr"); assert sys.stdin.read() == ""
from hub.runtime.process import Process
said = []
use = "import socket; socket.socket(fileno=%%d).getsockname(); print('there')" %% door.fileno()
child = Process([sys.executable, "-c", use], os.getcwd(), dict(os.environ), said.append, [door.fileno()])
child.start()
assert (child.join(), said) == (0, ["there"]), said
open(sys.argv[1], "w").write("well")
"""


@pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_with_closed_streams_no_socket_takes_their_place_and_children_get_theirs(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    note = tmp_path / "note"
    shut = " ".join(f"{number}>&-" for number in closed)
    command = f'exec "$0" -c "$1" "$2" {shut}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, CLOSED % (closed,), str(note)],
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    assert note.is_file(), done.stderr.decode()
    assert note.stat().st_mode & 0o077 == 0


UMASK = """
import os, sys
from hub.runtime.program import begin, users_umask
os.umask(0o022)
begin(); begin()
open("ours", "w").close()
with users_umask():
    open("users", "w").close()
open("ours again", "w").close()
"""


def test_files_are_the_owners_alone_but_for_those_that_are_meant_for_others(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", UMASK], cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert modes == {"ours": "0o600", "users": "0o644", "ours again": "0o600"}


def test_what_an_older_version_left_open_is_closed_to_others(tmp_path: Path) -> None:
    data = tmp_path / ".hub"
    files = [data / "ledger.sqlite", data / "rules.json", data / "run" / "notes.json", data / "logs" / "processor.log"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.parent.chmod(0o755)
        file.write_text("x")
        file.chmod(0o644)
    outside = tmp_path / "outside"
    outside.write_text("x")
    outside.chmod(0o644)
    (data / "link").symlink_to(outside)
    assert open_to_others(data)
    keep_private(data)
    keep_private(data)
    assert not open_to_others(data)
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in (data, data / "run", data / "logs")} == {"0o700"}
    assert outside.stat().st_mode & 0o777 == 0o644, "what a link leads to is not the hub's"


def test_a_folder_that_all_may_write_to_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    keep_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    tmp_path.chmod(0o700)


def test_data_that_are_not_there_yet_are_made(tmp_path: Path) -> None:
    assert not open_to_others(tmp_path / "a" / ".hub")
    keep_private(tmp_path / "a" / ".hub")
    assert (tmp_path / "a" / ".hub").stat().st_mode & 0o777 == 0o700
